deepspeed --module openrlhf.cli.train_opd \
   --pretrain org/student \
   --teacher org/teacher \
   --prompt_data org/prompts \
   --input_key question \
   --generate_max_len 256 \
   --learning_rate 1e-6 \
   --save_path ./checkpoint/student

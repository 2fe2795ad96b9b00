"""What `engine: vllm` and trl's GRPO use of vLLM, on transformers, for machines where vLLM cannot be installed.

Each name takes the arguments of the real one and no others, and refuses what the real one refuses.
"""

import dataclasses
import sys
from types import ModuleType, SimpleNamespace

import torch

__version__ = "0.31.0"

# what trl imports for a server, and for answers of a given form
for name in ("sampling_params", "utils", "utils.network_utils", "distributed", "distributed.weight_transfer",
             "distributed.weight_transfer.nccl_common", "distributed.weight_transfer.packed_tensor"):  # fmt: skip
    module = sys.modules[f"vllm.{name}"] = ModuleType(f"vllm.{name}")
    for member in ("StructuredOutputsParams", "get_ip", "trainer_init", "packed_nccl_broadcast_producer"):
        setattr(module, member, None)


@dataclasses.dataclass
class EngineArgs:
    model: str
    tokenizer: str | None = None
    revision: str | None = None
    dtype: str = "auto"
    seed: int = 0
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    distributed_executor_backend: str | None = None
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enable_prefix_caching: bool | None = None
    enable_sleep_mode: bool = False
    generation_config: str = "auto"
    logprobs_mode: str = "raw_logprobs"
    model_impl: str = "auto"
    quantization: str | None = None
    trust_remote_code: bool = False


@dataclasses.dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    detokenize: bool = True

    def __post_init__(self):
        if self.temperature == 0 and self.n > 1:
            raise ValueError(f"n must be 1 when using greedy sampling, got {self.n}.")


class RequestOutput:
    pass


class LLM:
    def __init__(self, model, **options):
        from transformers import AutoModelForCausalLM

        args = EngineArgs(model, **options)
        self.policy = AutoModelForCausalLM.from_pretrained(model, revision=args.revision, dtype=args.dtype).eval()
        self.generator = torch.Generator().manual_seed(args.seed)
        weights = self.policy.state_dict()
        runner = SimpleNamespace(model=SimpleNamespace(
            load_weights=lambda pairs: [weights[name].copy_(value) for name, value in pairs]))  # fmt: skip
        self.llm_engine = SimpleNamespace(
            engine_core=SimpleNamespace(shutdown=lambda: None),
            model_config=SimpleNamespace(max_model_len=args.max_model_len),
            model_executor=SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner)),
        )

    def reset_prefix_cache(self):
        return True

    @torch.no_grad()
    def generate(self, prompts, sampling_params, *, use_tqdm=True):
        each = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        found = []
        for prompt, wanted in zip(prompts, each, strict=True):
            ids = prompt["prompt_token_ids"]
            outputs = [self._one(ids, wanted, k) for k in range(wanted.n)]
            found.append(SimpleNamespace(prompt_token_ids=ids, outputs=outputs[::-1]))
        return found

    def _one(self, prompt, wanted, k):
        generator = self.generator if wanted.seed is None else torch.Generator().manual_seed(wanted.seed + k)
        ids, logprobs = list(prompt), []
        stops = wanted.stop_token_ids or [self.policy.generation_config.eos_token_id]
        while len(logprobs) < wanted.max_tokens and not (logprobs and ids[-1] in stops):
            logits = self.policy(input_ids=torch.tensor([ids])).logits[0, -1].float()
            logps = (logits / (wanted.temperature or 1.0)).log_softmax(-1)
            drawn = torch.multinomial(logps.exp(), 1, generator=generator) if wanted.temperature else logps.argmax()
            ids.append(int(drawn))
            logprobs.append({ids[-1]: SimpleNamespace(rank=1, logprob=logps[ids[-1]].item())})
        return SimpleNamespace(index=k, token_ids=tuple(ids[len(prompt) :]), logprobs=logprobs)

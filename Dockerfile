# One machine with GPUs: docker build -t trimtab . && docker run --gpus all --shm-size 8g -v "$PWD":/work trimtab run mine.yaml
FROM python:3.11-slim

# the distribution's newest, with its security fixes
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap build-essential git \
    && rm -rf /var/lib/apt/lists/*

# packages first: a change of the code installs none of them again
COPY pyproject.toml constraints.txt README.md LICENSE __init__.py /opt/trimtab/
RUN pip install --no-cache-dir --constraint /opt/trimtab/constraints.txt torch transformers trl accelerate peft datasets
COPY . /opt/trimtab
RUN pip install --no-cache-dir --constraint /opt/trimtab/constraints.txt "/opt/trimtab[deepspeed,math,metrics,optuna,retrieval,search,serve]"

# recipes and runs are the user's, in the folder that is mounted here
WORKDIR /work
ENTRYPOINT ["trimtab"]
CMD ["--help"]

"""Serves any reward over OpenRLHF's HTTP contract.

    python scripts/serve_reward.py --config server.yaml
    python scripts/serve_reward.py --config server.yaml port=0 reward.target=40

The keys of server.yaml, with their defaults but for `reward` (any reward of the recipes):

    reward: {kind: reward_model, path: runs/tiny/politeness/output}
    host: 127.0.0.1          # another than this machine's own only with a token
    port: 5000               # 0: any that is free
    token_env: REWARD_TOKEN  # the environment variable with the token, when there is to be one
    tokenizer: null          # the policy's: its special tokens are taken out of prompts and completions
    max_body_mb: 16          # MiB per request
    max_completions: 4096    # per request
    batch_size: 64           # completions per call of the reward, merged from all requests that wait
    max_wait: 0.01           # seconds that a completion waits for others to fill its batch
    warm_up: {prompt: What is 2 + 2?, completion: '4', label: '4'}   # scored once, before the port opens

POST /get_reward (or /) takes {"query": [...], "prompts": [...], "labels": [...]}, the last two optional, and answers
{"rewards": [...], "scores": [...], "extra_logs": {name: [...]}}: a number per query, null where the reward abstains,
and the numbers that it logs through `log_extra`. The completion is what follows the prompt in its query; where the
query does not begin with the prompt, the prompt is "" and the completion all of it. The reward also gets the columns
`labels` and `queries`, the full texts as they came. When it fails on a query the answer is 500 and {"error": ...},
never a made-up number; 401, 413 and 422 say what is wrong with the request. GET /health needs no token; GET /metadata
tells what is served. SIGTERM and Ctrl-C end the server with exit code 0, after every request in it has its answer.

    openrlhf: --reward.remote_url http://127.0.0.1:5000/get_reward
    with a token, which OpenRLHF can only send so: http://any:TOKEN@host:5000/get_reward
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards import RewardFailure
from trimtab.scripts.train import fail, quiet


def main(argv: list[str] | None = None) -> int:
    """0 after a signal, 1 when the port or the reward does not work, 2 for a mistake in the configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="the server's YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="port=0")
    options = parser.parse_intermixed_args(argv)
    quiet()
    try:
        import uvicorn
        from trimtab.pipelines.scoring import server
    except ImportError as error:
        return fail(f"{error}: pip install 'trimtab[serve]'")
    # while the reward is loading, and again after uvicorn has answered everything: it raises the signal once more then
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        document = Document.read(options.config, options.overrides)
    except RecipeError as error:
        return fail(str(error))
    try:
        checked = schema.check(server.Server, document.values)
        server, block = schema.instance(server.Server, checked), checked["reward"]
        with bind(server.host, server.port) as listener:
            app = server.app(server, block)
            listener.listen(2048)
            host = f"[{server.host}]" if ":" in server.host else server.host
            print(f"serving {block['kind']} on http://{host}:{listener.getsockname()[1]}/get_reward", flush=True)
            config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, server_header=False)
            uvicorn.Server(config).run(sockets=[listener])
    except RecipeError as error:
        return fail(str(document.locate(error)))
    except RewardFailure as error:
        fail(f"the reward does not score the pair of `warm_up: {{prompt: ..., completion: ..., label: ...}}`: {error}")
        return 1
    except OSError as error:
        fail(str(error))
        return 1
    return 0


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the port, before anything slow, but does not listen yet. Raises OSError when it is taken."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        raise OSError(f"{host}:{port}: {error.strerror or error} (port=0 takes any that is free)") from None
    return bound


if __name__ == "__main__":
    sys.exit(main())

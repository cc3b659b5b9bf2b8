"""From opening a model to its first token, for the default model as a GGUF file and as a copy of
it in Hugging Face's form (float32 safetensors, one file or shards).

    python bench/model_loading.py [--repeat 3] [--threads 2] [--shards 1]

Each time is taken in a process of its own, after imports, with the files in the page cache; the
two take turns, so that their ratio holds on a machine that does other work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from sglc.progress import Progress
from sglc.runtime.model_runner import open_model
from sglc.runtime.weights.fetch import fetch_default_model
from sglc.runtime.weights.gguf import GGUFFile

PROMPT = "The capital of France is"
CHILD = """
import sys, time, json, torch
torch.set_num_threads(int(sys.argv[2]))
import sglc, sglc.runtime.model_runner, sglc.runtime.engine, sglc.tokens.bpe
import sglc.backends.templates
begin = time.perf_counter()
with sglc.Engine(sys.argv[1], device="cpu") as engine:
    opened = time.perf_counter()
    engine.generate(sys.argv[3], sampling={"max_new_tokens": 1, "temperature": 0.0})
    first = time.perf_counter()
    text = engine.generate(sys.argv[3], sampling={"max_new_tokens": 24, "temperature": 0.0}).text
    info = engine.info()
print(json.dumps({"open": opened - begin, "first": first - begin, "text": text,
                  "load": info["load"], "load_seconds": info["load_seconds"]}))
"""


def write_hf_copy(gguf: Path, folder: Path, shards: int = 1) -> None:
    """A Llama with a byte-level vocabulary as a Hugging Face folder with float32 weights."""
    source, c, metadata = open_model(gguf)
    assert c.family == "llama" and isinstance(metadata, dict)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim, "rms_norm_eps": c.rms_eps,
        "rope_theta": c.rope_theta, "max_position_embeddings": c.context_length,
        "tie_word_embeddings": c.tied}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(GGUFFile(gguf).metadata, folder)
    names = sorted(source.names())
    files = ["model.safetensors"] if shards == 1 else [
        f"model-{k + 1:05}-of-{shards:05}.safetensors" for k in range(shards)]
    parts = {file: names[k::shards] for k, file in enumerate(files)}
    for file, part in parts.items():
        save_file({name: source.read(name) for name in part}, folder / file)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps(
            {"weight_map": {name: file for file, part in parts.items() for name in part}}))


def _write_tokenizer(metadata: dict, folder: Path) -> None:
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "added_tokens": [{"id": i, "content": t, "special": True, "normalized": False,
                          "single_word": False, "lstrip": False, "rstrip": False}
                         for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True))
                         if kind == 3],
        "normalizer": None, "post_processor": None, "decoder": byte_level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, byte_level]},
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)},
                  "merges": metadata["tokenizer.ggml.merges"]}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],
        "chat_template": metadata["tokenizer.chat_template"]}))


def measure(path: Path, threads: int) -> dict:
    """What a process that opens the model says."""
    run = subprocess.run([sys.executable, "-c", CHILD, str(path), str(threads), PROMPT],
                         capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shards", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    gguf = fetch_default_model()
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "model"
        write_hf_copy(gguf, folder, args.shards)
        ways = {"GGUF Q4_1": gguf, "safetensors f32": folder}
        runs: dict[str, list[dict]] = {label: [] for label in ways}
        bar = Progress((args.repeat + 1) * len(ways), unit="run", leave=False)
        for turn in range(args.repeat + 1):  # the first is not counted
            for label in list(ways)[::-1 if turn % 2 else 1]:
                found = measure(ways[label], args.threads)
                bar.step()
                if turn:
                    runs[label].append(found)
    bar.close()
    for label, found in runs.items():
        firsts = [run["first"] for run in found]
        best = found[firsts.index(min(firsts))]
        print(f"{label:16} open to first token: best {best['first']:.2f} s (of it opening "
              f"{best['open']:.2f}), median {statistics.median(firsts):.2f} s   weights "
              f"{best['load']}")
    one, other = runs.values()
    ratios = [b["first"] / a["first"] for a, b in zip(one, other, strict=True)]
    print(f"{' / '.join(list(ways)[::-1])}: median {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} to {max(ratios):.2f})")
    texts = {run["text"] for found in runs.values() for run in found}
    print("same text" if len(texts) == 1 else f"TEXTS DIFFER: {texts}")


if __name__ == "__main__":
    main()

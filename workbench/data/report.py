"""The data report: the content of a source and what was skipped, for data.json, the terminal and HTML."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc

from workbench.data.caption_columns import COLUMNS, SHARES
from workbench.data.pairs import Pairs


def data_report(pairs: Pairs, unreadable: Mapping[int, str] | None = None) -> dict[str, Any]:
    """The report of a split, as JSON.

    `pairs` counts its pictures. `skipped` gives, by reason, how many pairs or captions of the whole source
    were skipped, with the first ids, including the pictures of `unreadable` rows. `copies_merged` counts
    pictures of the source that have the same bytes as another. `without_caption`, if not 0, counts pictures
    without a caption. `caption_columns` counts, where there are several, the captions of each with its share.
    """
    captions = np.diff(pairs.first_caption)
    without = int((captions == 0).sum())
    skipped = pairs.rejected.copy()
    for row, reason in (unreadable or {}).items():
        skipped.note(reason, pairs.id(row))
    return {
        "source": pairs.name,
        "format": pairs.facts.get("format", pairs.name),
        "split": pairs.split,
        "split_from": pairs.facts.get("split from", "the source itself"),
        "splits": pairs.facts.get("splits", {}),
        "pairs": len(pairs),
        "captions": int(captions.sum()),
        "captions_a_picture": {
            "mean": round(float(captions.mean()), 2) if len(captions) else 0,
            "least": int(captions.min(initial=captions.max(initial=0))),
            "most": int(captions.max(initial=0)),
        },
        **({"without_caption": without} if without else {}),
        **({"caption_columns": _columns(pairs)} if SHARES in pairs.facts else {}),
        "copies_merged": pairs.facts.get("copies merged", 0),
        "skipped": {
            reason: {"count": count, "first": skipped.examples.get(reason, [])}
            for reason, count in skipped.most_common()
        },
        "fingerprint": pairs.fingerprint,
    }


def _columns(pairs: Pairs) -> dict[str, dict[str, float]]:
    shares = {name: share for name, share in pairs.facts[SHARES].items() if share > 0}
    numbers = pc.list_flatten(pairs.table[COLUMNS]).to_numpy()
    counts = np.bincount(numbers, minlength=len(shares))
    return {
        name: {"share": share, "captions": int(count)}
        for (name, share), count in zip(shares.items(), counts, strict=True)
    }


def report_line(use: str, report: Mapping[str, Any]) -> str:
    """The report of a split in one line of text."""
    spread = report["captions_a_picture"]
    without = report.get("without_caption", 0)
    several = f" ({spread['least']} to {spread['most']} a picture)" if spread["most"] > 1 else ""
    captions = f"with {report['captions']:,} captions{several}" if report["captions"] else "without captions"
    if report["captions"] and without:
        captions += f", {without:,} of them without a caption"
    parts = [
        f"{use} data: {report['pairs']:,} pictures {captions}, split "
        f"{report['split']!r} of {report['source']} ({report['format']}, split by {report['split_from']})"
    ]
    if report["copies_merged"]:
        count = report["copies_merged"]
        parts.append(f"{count:,} {'copy' if count == 1 else 'copies'} of pictures merged (data.duplicates)")
    if text := skipped_text(report["skipped"]):
        parts.append(f"left out of the source: {text}")
    return "; ".join(parts)


def skipped_text(skipped: Mapping[str, Mapping[str, Any]]) -> str:
    """Reasons with their counts and first ids as text."""
    return ", ".join(
        f"{what['count']:,} {reason}" + (f" (such as {', '.join(what['first'])})" if what["first"] else "")
        for reason, what in skipped.items()
    )

"""Exact ranks of 10,000 queries among 60,000 items against the bare matrix product in the same tiles, with peak memory.

``python benchmarks/ranks.py --out results/bench-ranks.json``
"""

from __future__ import annotations

from typing import Any

import harness
import torch
from torch import Tensor

from embattle.metrics import ranks
from embattle.similarity import Cosine, Similarity

ROWS, COLUMNS = 1_000, 4_096


def bare_product(query: Tensor, gallery: Tensor) -> Tensor:
    """All products, in blocks that were the fastest of those tried, each written over the last."""
    block = torch.empty(min(ROWS, len(query)), min(COLUMNS, len(gallery)))
    for part in gallery.split(COLUMNS):
        for rows in query.split(ROWS):
            torch.mm(rows, part.T, out=block[: len(rows)].view(-1)[: len(rows) * len(part)].view(len(rows), len(part)))
    return block


def compared(queries: int, items: int, dimension: int, similarity: Similarity, repeats: int) -> dict[str, Any]:
    """Ranks of one gallery item per query, and the product alone."""
    query = torch.nn.functional.normalize(torch.randn(queries, dimension))
    gallery = torch.nn.functional.normalize(torch.randn(items, dimension))
    own = torch.randint(items, (queries,))
    before = harness.reset_peak()
    # The rank of a gallery item meets its own copy, the tie that float32 cannot decide.
    found = ranks(query, gallery[own], gallery, similarity)[:, 0]
    grown = harness.peak_bytes() - before
    few = torch.arange(0, queries, max(1, queries // 50))
    exact = query[few].double() @ gallery.double().T
    expected = (exact > exact.gather(1, own[few, None]) + 1e-12).sum(1)
    assert torch.equal(found[few], expected), "a rank is wrong: there is nothing to time"
    seconds = harness.alternate(
        {"ranks": lambda: ranks(query, gallery[own], gallery, similarity), "product": lambda: bare_product(query, gallery)},
        repeats,
    )
    return {
        "dimension": dimension, "similarity": similarity.name, "median_seconds": harness.medians(seconds),
        "rate_of_the_product": harness.ratio(seconds, "product", "ranks"), "ranks_checked_in_float64": len(few),
        "peak_megabytes_above_the_embeddings": round(grown / 2**20),
    }  # fmt: skip


def main() -> None:
    """Two lengths of embeddings."""
    given = harness.arguments(__doc__, repeats=3, queries=10_000, items=60_000)
    found = [compared(given.queries, given.items, size, Cosine(), given.repeats) for size in (128, 1024)]
    harness.publish(
        "ranks", "rate_of_the_product is seconds of the bare product over seconds of exact ranks; 1 is the most", given,
        {"lengths": found},
    )  # fmt: skip


if __name__ == "__main__":
    main()

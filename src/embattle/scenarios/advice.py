"""What several scenarios advise."""

from __future__ import annotations

HARDEN = "Harden the model by adversarial training (embattle harden), and measure again."
SEVERAL_NEIGHBOURS = "Do not let a nearest-neighbour class decide alone; ask for agreement among several neighbours."

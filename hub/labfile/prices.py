"""The lab file's section ``prices``."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field

from hub.labfile.fields import Frozen, Slug

Price = Annotated[float, Field(ge=0, le=1000)]


class Prices(Frozen):
    """What jobs cost the lab: plans, cards and `labkit.costs()` say it then."""

    currency: str = Field(pattern=r"^[A-Z]{3}$", description="`EUR`")
    core: dict[Slug, Price] = Field(
        description="backend (`local`, `slurm`, `batch`, ...): price of a core for an hour"
    )
    gb: dict[Slug, Price] = Field(
        default_factory=dict, description="backend: price of a GB of memory for an hour"
    )

    def variables(self) -> dict[str, str]:
        """Return the environment variables of servers."""
        return {"LABKIT_PRICES": json.dumps(self.model_dump(), sort_keys=True)}

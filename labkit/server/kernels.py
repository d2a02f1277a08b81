"""The kernels of a server: the lab's environments, the person's, and all others.

The lab's kernel keeps its name ``python3``, which notebooks carry with them, whatever kernels a
person has installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import (
    NATIVE_KERNEL_NAME,
    KernelSpec,
    KernelSpecManager,
    NoSuchKernel,
)
from traitlets import Instance, default

from labkit.base.interpreter import LAB
from labkit.environments import named, start_kernel
from labkit.environments.kernel_notes import RENEWED
from labkit.environments.lab import lab_environments
from labkit.environments.personal import Personal

OWN = "own-python3"  # a kernel of the person's that would hide the lab's
_NAMED = "env-"
_LAB = "lab-"


class LabKernels(KernelSpecManager):
    """Find kernels as Jupyter does, with the lab's own and the person's environments.

    Attributes
    ----------
    personal : Personal
        The layer in which the lab's kernel runs.
    renewed : bool
        The lab's environment has changed since the person's last server.
    """

    personal = Instance(Personal)
    renewed = False

    @default("personal")
    def _personal(self) -> Personal:
        return Personal()

    def find_kernel_specs(self) -> dict[str, str]:
        """Return the folder of each kernel, by its name."""
        lab = self._lab_folder()
        specs = dict(super().find_kernel_specs())
        specs.pop(NATIVE_KERNEL_NAME, None)
        own = Path(self.user_kernel_dir, NATIVE_KERNEL_NAME)
        if (own / "kernel.json").is_file():
            specs[OWN] = str(own)
        specs |= dict.fromkeys(self._further(), lab)
        return {NATIVE_KERNEL_NAME: lab, **specs}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return one kernel.

        Raises
        ------
        NoSuchKernel
            There is none of that name.
        """
        if kernel_name == NATIVE_KERNEL_NAME:
            return self._lab()
        if kernel_name == OWN:
            folder = self.find_kernel_specs().get(OWN)
            if folder is None:
                raise NoSuchKernel(kernel_name)
            spec = self.kernel_spec_class.from_resource_dir(folder)
            spec.display_name = f"{spec.display_name} (your own)"
            return spec
        further = self._further().get(kernel_name)
        if further is None:
            return super().get_kernel_spec(kernel_name)
        name, python = further
        # Its programs come first in `!` and %%bash too; labkit's own run in the lab's Python.
        path = f"{python.parent}{os.pathsep}${{PATH}}"
        # As tasks of jobs have it: in old pipelines, names would else come in an order by chance.
        env = {"PATH": path, LAB: str(self.personal.lab), "PYTHONHASHSEED": "0"}
        return self._python([str(python), "-m", "ipykernel_launcher"], name, env)

    @staticmethod
    def _further() -> dict[str, tuple[str, Path]]:
        """Return name and Python of each kernel in an environment of its own, by the kernel's."""
        lab = {f"{_LAB}{one.name}": (one.name, one.python) for one in lab_environments()}
        return lab | {f"{_NAMED}{one.name}": (one.name, one.python) for one in named.environments()}

    def _lab(self) -> KernelSpec:
        layer = self.personal.python
        python = str(layer) if os.access(layer, os.X_OK) else sys.executable
        env = {LAB: str(self.personal.lab)}
        if self.renewed:
            env[RENEWED] = "1"
        return self._python([python, str(Path(start_kernel.__file__))], "ipykernel", env)

    def _python(self, argv: list[str], name: str, env: dict[str, str] | None = None) -> KernelSpec:
        return self.kernel_spec_class(
            resource_dir=self._lab_folder(),
            argv=[*argv, "-f", "{connection_file}"],
            display_name=f"Python 3 ({name})",
            language="python",
            env=env or {},
            metadata=self._metadata(),
        )

    @staticmethod
    def _lab_folder() -> str:
        from ipykernel.kernelspec import RESOURCES

        return str(RESOURCES)

    @staticmethod
    def _metadata() -> dict[str, Any]:
        from ipykernel.kernelspec import get_kernel_dict

        return dict(get_kernel_dict()["metadata"])

"""An alignment job in the notebook: tables, alignments, figures, and what comes after it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from labkit.base.problems import LabkitError, unknown_name
from labkit.jobs import plugins
from labkit.jobs.runs.watch import Snapshot
from labkit.workflows.gather_job import GatheredJob

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from labkit.workflows.alignment.sarek import SarekSheet
    from labkit.workflows.alignment.variants import Variants

_FILES = {"bams": ("path", "index", "recalibration_table"), "vcfs": ("path", "index")}
_SHOWN = 12  # samples in the card's table


class _SamplesJob(GatheredJob):
    """A job over samples, with tables and a report."""

    @property
    def report(self) -> Path:
        """MultiQC's report over all samples, an HTML page.

        Raises
        ------
        LabkitError
            It was not made; the text says why.
        """
        made = self.summary["report"]
        if not made["made"]:
            raise LabkitError(f"There is no report: {made['text']}.")
        return self.gathered / str(made["file"])

    def results(self, name: str | None = None, *, engine: str = "pandas") -> Any:
        """Return a table over all samples; without a name, what tables there are.

        Parameters
        ----------
        name : str
            ``"calls"`` (one row per sample), ``"variants"``, ``"vcfs"``, ``"commands"``,
            ``"versions"``, ``"problems"``; or a glob of files of the tasks.
        engine : {"pandas", "polars", "arrow"}
            How it is returned.

        Raises
        ------
        LabkitError
            There is nothing of that name; the text lists what there is.
        """
        if name is None:
            rows = [
                {"table": table, "rows": rows} for table, rows in self.summary["tables"].items()
            ]
            return pd.DataFrame(rows, columns=["table", "rows"])
        if name.isidentifier():
            _ = self.gathered  # tells what to do where there is none yet
        found = super().results(name, engine=engine)
        if name in _FILES and engine == "pandas":
            results = self.run.folder.results
            for column in _FILES[name]:
                found[column] = [str(results / path) if path else None for path in found[column]]
        return found

    def warnings(self) -> list[str]:
        """Return what makes results doubtful, as ``job.results("problems")`` has it."""
        try:
            texts = self.summary.get("warnings", ())
        except (LabkitError, OSError):
            return []
        return [f"{entry['sample']}: {entry['text']}" for entry in texts]


class VariantsJob(_SamplesJob):
    """A submitted job of variant calls.

    Examples
    --------
    >>> calls.results("calls")[["sample", "snps", "indels", "ts_tv"]]  # doctest: +SKIP
    >>> calls.results("variants")  # doctest: +SKIP
    """


class AlignmentJob(_SamplesJob):
    """A submitted alignment job.

    Examples
    --------
    >>> job.results("alignment")[["sample", "mapped_fraction", "mean_depth"]]  # doctest: +SKIP
    >>> job.results("bams")  # doctest: +SKIP
    >>> job.plot("coverage")  # doctest: +SKIP
    """

    def results(self, name: str | None = None, *, engine: str = "pandas") -> Any:
        """Return a table over all samples; without a name, what tables there are.

        Parameters
        ----------
        name : str
            ``"alignment"`` (one row per sample), ``"bams"`` (their files with checksums),
            ``"insert_sizes"``, ``"coverage"``, ``"contigs"``, ``"cycles"``, ``"lanes"``,
            ``"commands"``, ``"versions"``, ``"problems"`` (what is missing and why), ...; or a
            glob of files of the tasks.
        engine : {"pandas", "polars", "arrow"}
            How it is returned.

        Raises
        ------
        LabkitError
            There is nothing of that name; the text lists what there is.
        """
        return super().results(name, engine=engine)

    def plot(self, *names: str) -> Figure:
        """Draw figures side by side.

        Parameters
        ----------
        names : str
            ``"insert_size"``, ``"coverage"``, ``"duplicates"``, ``"depth"``, ``"mismatches"``,
            ``"recalibration"``; without any, what the card shows.

        Raises
        ------
        LabkitError
            There is no such figure; the text lists what there is.
        """
        from labkit.jobs.notebook.figure import NotebookFigure
        from labkit.workflows.alignment.task_code.gather import plots

        for name in names:
            if name not in plots.PLOTS:
                raise LabkitError(str(unknown_name("plot", name, plots.PLOTS)))
        return plots.draw(self.gathered, names, NotebookFigure)

    def variants(self, **options: Any) -> Variants:
        """Return the workflow that calls variants in these alignments, to be submitted.

        Parameters
        ----------
        options
            Of :class:`labkit.Variants`: ``ploidy``, ``min_quality``, ...

        Examples
        --------
        >>> calls = job.variants(ploidy=1).submit().wait()  # doctest: +SKIP
        >>> calls.results("variants")  # doctest: +SKIP
        """
        workflow: type[Variants] = plugins.find(plugins.WORKFLOWS, "variants").load()
        return workflow(self, **options)

    def to_sarek(
        self,
        path: str | Path,
        *,
        patient: Mapping[str, str] | None = None,
        sex: Mapping[str, str] | None = None,
        status: Mapping[str, int] | None = None,
    ) -> SarekSheet:
        """Write nf-core/sarek's sample sheet for this job's alignments.

        What is not given here is as the job's own sample sheet says in its columns ``patient``,
        ``sex`` and ``status``.

        Parameters
        ----------
        path : str or Path
            The CSV file to write.
        patient : mapping of str to str, optional
            Sample -> patient; without it each sample is a patient of its own.
        sex : mapping of str to {"XX", "XY", "NA"}, optional
            Patient -> sex.
        status : mapping of str to {0, 1}, optional
            Sample -> 0 (normal) or 1 (tumor).

        Returns
        -------
        SarekSheet
            With the step to start sarek at, and its command line.

        Raises
        ------
        RefusedError
            With all that sarek would not take.
        """
        from labkit.workflows.alignment.sarek import sheet_words, write_sheet

        bams = self.results("bams")
        said = sheet_words(self._sheet(), bams["sample"], patient or {})
        return write_sheet(
            bams,
            path,
            {**said.patient, **(patient or {})},
            {**said.sex, **(sex or {})},
            {**said.status, **(status or {})},
        )

    def _sheet(self) -> list[dict[str, Any]]:
        """Return what the job's sample sheet says of each sample."""
        content = (self.run.folder.files / "samples.json").read_text(encoding="utf-8")
        samples: list[dict[str, Any]] = json.loads(content)
        return samples

    def figure_html(self, snapshot: Snapshot) -> str:
        """Return the card's table and figures, once the job has ended."""
        if not snapshot.state.final:
            return ""
        try:
            folder, table = self.gathered, self.results("alignment")
            picture = (folder / "summary.png").read_bytes()
        except (LabkitError, OSError):
            return ""
        return self._missing_html() + _table_html(table) + _picture_html(picture, table)

    def _missing_html(self) -> str:
        """Return whose reports could not be read; the card has the tasks that failed anyway."""
        if not self.summary["tables"].get("problems"):
            return ""
        problems = self.results("problems")
        return _problems_html(problems[problems["tables"].notna()])


def _problems_html(problems: pd.DataFrame) -> str:
    """Return which samples are not in all tables, and why."""
    if problems.empty:
        return ""
    lines = "".join(
        f"<li><b>{html.escape(row['sample'])}</b>: {html.escape(row['text'])}</li>"
        for row in problems.head(_SHOWN).to_dict("records")
    )
    count = problems["sample"].nunique()
    which = "1 sample lacks" if count == 1 else f"{count:,} samples lack"
    return (
        f"<div role='note'>{which} results (<code>job.results(\"problems\")</code>):"
        f"<ul style='margin:0'>{lines}</ul></div>"
    )


def _table_html(table: pd.DataFrame) -> str:
    """Return the most important numbers of each sample."""
    columns: Sequence[tuple[str, str, str]] = (
        ("reads", "reads", "{:,.0f}"),
        ("mapped_fraction", "mapped", "{:.1%}"),
        ("duplicate_fraction", "duplicates", "{:.1%}"),
        ("insert_size_median", "insert size", "{:.0f}"),
        ("mean_depth", "depth", "{:.1f}"),
        ("covered_fraction", "covered", "{:.1%}"),
        ("error_rate", "mismatches", "{:.2%}"),
    )
    cell = "padding:0 1rem 0 0;text-align:right"
    head = "".join(f"<th scope='col' style='{cell}'>{title}</th>" for _, title, _ in columns)
    body = ""
    for row in table.head(_SHOWN).to_dict("records"):
        values = "".join(
            f"<td style='{cell}'>{'–' if pd.isna(row[name]) else form.format(row[name])}</td>"
            for name, _, form in columns
        )
        name = html.escape(str(row["sample"]))
        body += f"<tr><th scope='row' style='{cell};text-align:left'>{name}</th>{values}</tr>"
    more = len(table) - _SHOWN
    rest = f'<div>… and {more:,} more in <code>job.results("alignment")</code></div>'
    return (
        f"<table style='margin:4px 0;color:inherit;font-size:90%'><thead><tr><th scope='col' "
        f"style='{cell};text-align:left'>sample</th>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"{rest if more > 0 else ''}"
    )


def _picture_html(picture: bytes, table: pd.DataFrame) -> str:
    depth, duplicates = table["mean_depth"].mean(), table["duplicate_fraction"].mean()
    said = f"Insert sizes, coverage and duplicates of {len(table)} samples; mean depth {depth:.1f}"
    said += "" if pd.isna(duplicates) else f", duplicates {duplicates:.1%}"
    data = base64.b64encode(picture).decode()
    return (
        f"<img alt='{html.escape(said, quote=True)}' style='max-width:100%' "
        f"src='data:image/png;base64,{data}'>"
    )

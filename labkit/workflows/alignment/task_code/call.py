"""The stage ``calls``: germline variants of one sample with bcftools, as an indexed VCF.

Writes ``<sample>.vcf.gz`` with its index, ``variants.tsv``, ``sample.json``, ``commands.json``,
``checksums.sha256`` and ``metrics/calls.stats.txt`` (bcftools stats).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from . import cache, checksums, layout, pipe, programs

TABLE = "variants.tsv"
STATS = f"{layout.METRICS}/calls.stats.txt"
#: Fields of ``variants.tsv``, one line per sample, place and alternative allele.
FIELDS = "%CHROM\t%POS\t%REF\t%ALT\t%QUAL\t%FILTER\t%TYPE[\t%GT\t%DP\t%AD{0}\t%AD{1}]\n"
_DEPTH = 8000  # reads at a place that mpileup looks at; deeper ones are thinned


def main(task: Any) -> None:
    """Call one sample."""
    sample, settings = task.params["sample"], task.settings
    tools = programs.Tools(os.environ, task.tmp, task.tmp / "tools.log")
    fasta = get_fasta(task)
    (task.out / layout.METRICS).mkdir()
    vcf = task.out / f"{sample['name']}.vcf.gz"
    chain(tools, task.tmp, commands(Path(sample["path"]), fasta, vcf, settings))
    tools.run("index", ["bcftools", "index", *index_options(settings), str(vcf)])
    stats = ["bcftools", "stats", "-F", str(fasta), "-s", "-", "-f", "PASS", str(vcf)]
    tools.run("stats", stats, stdout=task.out / STATS)
    query = ["bcftools", "query", "-f", FIELDS, str(vcf)]
    tools.run("query", query, stdout=task.out / TABLE)
    content = {
        "sample": sample["name"],
        "vcf": vcf.name,
        "index": f"{vcf.name}.{'csi' if settings['csi'] else 'tbi'}",
        "alignment": sample["path"],
        "options": {name: settings[name] for name in ("ploidy", "min_quality", "min_depth")},
    }
    (task.out / layout.SAMPLE).write_text(json.dumps(content, indent=1) + "\n")
    tools.write(task.out / layout.COMMANDS)
    checksums.write_checksums(task.out)


def get_fasta(task: Any) -> Path:
    """Find the reference of the alignment job on this node.

    Raises
    ------
    Failed
        It is not to be had.
    """
    reference = task.settings["reference"]
    store = cache.Cache(Path(reference["cache"]), reference["remote"], task.say)
    if not store.get(reference["digest"], cache.FASTA):
        place = store.place(reference["digest"])
        raise pipe.Failed(f"the reference is not in {place} on {os.uname().nodename}", "INPUT")
    return Path(store.fasta(reference["digest"]))


def commands(source: Path, fasta: Path, vcf: Path, settings: Any) -> list[list[str]]:
    """Return the chain of commands from an alignment to a compressed VCF.

    Duplicates, secondary and failed reads are left out by mpileup itself. What is weak is kept
    and says so in FILTER.
    """
    weak = f"QUAL<{settings['min_quality']:g} || FORMAT/DP<{settings['min_depth']:d}"
    pileup = ["bcftools", "mpileup", "-Ou", "-f", str(fasta), "-a", "FORMAT/AD,FORMAT/DP"]
    pileup += ["-d", str(_DEPTH), "-q", str(settings["min_mapping_quality"]), str(source)]
    return [
        pileup,
        ["bcftools", "call", "-m", "-v", "-Ou", "--ploidy", str(settings["ploidy"])],
        ["bcftools", "norm", "-Ou", "-f", str(fasta), "-m", "-any"],
        ["bcftools", "filter", "-s", "Weak", "-e", weak, "-Oz", "-o", str(vcf), "-"],
    ]


def index_options(settings: Any) -> list[str]:
    """Return which index is made: a .tbi ends at 2**29 bases."""
    return ["--csi"] if settings["csi"] else ["--tbi"]


def chain(tools: Any, tmp: Path, calls: list[list[str]]) -> None:
    """Run programs joined by pipes; each must end well."""
    line = pipe.Pipe(tools.env, tmp)
    try:
        read = None
        for number, argv in enumerate(calls):
            following, write = pipe.joint() if number < len(calls) - 1 else (None, None)
            name = " ".join(argv[:2])
            log = tmp / f"{argv[1]}.log"
            line.start(name, tools.note(name, argv), stdin=read, stdout=write, stderr=log)
            read = following
        line.wait()
    except BaseException:
        line.abort()
        raise
    tools.timed(line.members)

"""Transformations of IR modules: the pass manager and one file a pass, named after the pass."""

from __future__ import annotations

from sglc.passes.base import Pass, PassContext, Preserves, Rewrite
from sglc.passes.manager import PassError, PassManager, PassRecord
from sglc.passes.pipelines import DEFAULT_PIPELINE, PASSES, pipeline

__all__ = ["DEFAULT_PIPELINE", "PASSES", "Pass", "PassContext", "PassError", "PassManager",
           "PassRecord", "Preserves", "Rewrite", "pipeline"]

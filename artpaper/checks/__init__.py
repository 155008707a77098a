"""Warnings that an evaluation of robustness is not to be trusted; docs/checks.md explains each."""

from artpaper.checks.findings import PAGES, Finding, RobustnessWarning, check_results
from artpaper.checks.model import check_model

__all__ = ["PAGES", "Finding", "RobustnessWarning", "check_model", "check_results"]

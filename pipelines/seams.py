"""Every private or undocumented member of trl, transformers or accelerate that we touch, and nothing else.

tests/test_seams.py checks that each still exists with the signature that we rely on.
"""

from __future__ import annotations

from transformers.integrations.integration_utils import rewrite_logs

__all__ = ["rewrite_logs"]

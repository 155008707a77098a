"""What every stage stands on: parameters, errors, locks, files written whole."""

import sys

# of use to jsonschema alone, for a kind of address that no notebook has, and it compiles a grammar for two seconds
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

"""Public-key cryptography: key agreement, signatures, and the validation of certificate paths.

Never imported by a terminal, not even indirectly: the build checks it.
"""

import warnings

# The library warns of what its later releases will drop, finite-field Diffie-Hellman on every use, and of oddities
# in certificates. Which release is used is settled in pyproject.toml, and a peer's certificate must not be able to
# write to this process's stderr.
warnings.filterwarnings("ignore", category=UserWarning, module=r"locum\.crypto\.asymmetric")

# Power cuts under load: nothing that was acknowledged is lost, nothing is there twice.
set -e
"$(dirname "$0")/power" --rounds 25
"$(dirname "$0")/power" --control

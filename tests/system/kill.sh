# SIGKILL under load, a hundred times.
exec "$(dirname "$0")/power" --kill --rounds 100

"""Asks the container's own process whether it is ready; the health check of every image.

Run by path and with nothing but the standard library: it is run every few seconds for as long as a container lives.
"""

import http.client
import sys

_PORT = 8080
_SECONDS = 5.0


def main() -> int:
    """Return 0 where the process is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", _PORT, timeout=_SECONDS)
    try:
        connection.request("GET", sys.argv[1] if len(sys.argv) > 1 else "/readyz")
        answer = connection.getresponse()
        body = answer.read()
    except OSError as error:
        print(f"no answer: {error}")
        return 1
    if answer.status == http.client.OK:
        return 0
    print(body.decode(errors="replace"))
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Asks the node beside it one of its pages, and ends with 0 if all is well: ``python probe.py readyz``.

The kubelet's own httpGet comes from outside, where a token is needed that a manifest should not hold.
"""

import os
import sys
import urllib.request

_PAGES = "http://127.0.0.1:9464"

request = urllib.request.Request(f"{_PAGES}/{sys.argv[1]}")  # noqa: S310 - it is http
request.add_header("Authorization", f"Bearer {os.environ['KINFOLK_METRICS_TOKEN']}")
try:
    urllib.request.urlopen(request, timeout=3).close()  # noqa: S310 - it is http
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")

"""Reads bodies (base64, one a line) as servers in Python do, and prints for each
the tools that one of them would call."""

import base64
import json
import sys


def first_wins(pairs):
    members = {}
    for name, value in pairs:
        members.setdefault(name, value)
    return members


def any_case(pairs):
    return {name.lower(): value for name, value in pairs}


PARSERS = [
    json.loads,  # of bytes: it finds out about UTF-16 and UTF-32
    lambda body: json.loads(body.decode("utf-8-sig")),
    lambda body: json.loads(body.decode("utf-8", "replace")),
    lambda body: json.loads(body.decode("utf-8", "ignore")),
    lambda body: json.loads(body.decode("latin-1")),
    lambda body: json.loads(body, strict=False),
    lambda body: json.loads(body, object_pairs_hook=first_wins),
    lambda body: json.loads(body, object_pairs_hook=any_case),
    lambda body: json.JSONDecoder().raw_decode(body.decode().lstrip())[0],  # what follows is left
]


def messages(value):
    if isinstance(value, list):
        for element in value:
            yield from messages(element)
    elif isinstance(value, dict):
        yield value


for line in sys.stdin:
    body = base64.b64decode(line)
    tools = set()
    for parse in PARSERS:
        try:
            for message in messages(parse(body)):
                if message.get("method") == "tools/call":
                    tools.add(str(message["params"]["name"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    print(json.dumps(sorted(tools)), flush=True)

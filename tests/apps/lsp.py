"""Asks yaml-language-server what it makes of files of listend.

    lsp.py SERVER SCHEMA <requests >answers

A request is a line of JSON, [NAME, TEXT, WHAT]: of `TEXT`, in which `|` is the cursor, the completions ("complete") or the
description ("hover") at the cursor, or the errors of the whole ("errors"). An answer is a line, [NAME, [TEXT, ...]].
"""

import json
import subprocess
import sys


class Server:
    def __init__(self, program):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([program, "--stdio"], stdin=pipe, stdout=pipe)
        self.number = 0

    def send(self, **message):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def read(self):
        length = 0
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            sys.exit("yaml-language-server has ended")
        return json.loads(self.process.stdout.read(length))

    def until(self, wanted):
        """Answers what the server asks, until something is wanted."""
        while True:
            message = self.read()
            if "id" in message and "method" in message:
                items = message.get("params") or {}
                count = len(items.get("items", [])) if isinstance(items, dict) else 0
                self.send(id=message["id"], result=[None] * count if count else None)
            elif wanted(message):
                return message

    def ask(self, method, params):
        self.number += 1
        number = self.number
        self.send(id=number, method=method, params=params)
        return self.until(lambda message: message.get("id") == number)["result"]


def position(text):
    before = text[: text.index("|")]
    return {"line": before.count("\n"), "character": len(before) - before.rfind("\n") - 1}


def main():
    program, schema = sys.argv[1:]
    server = Server(program)
    server.ask("initialize", {
        "processId": None,
        "rootUri": None,
        "capabilities": {
            "textDocument": {
                "completion": {"completionItem": {"documentationFormat": ["markdown"]}},
                "hover": {"contentFormat": ["markdown"]},
            },
        },
    })
    server.send(method="initialized", params={})
    server.send(method="workspace/didChangeConfiguration", params={"settings": {"yaml": {
        "schemaStore": {"enable": False}, "validate": True, "hover": True, "completion": True,
    }}})
    # The line that the examples have.
    head = f"# yaml-language-server: $schema=file://{schema}\n"
    for number, line in enumerate(sys.stdin):
        name, text, what = json.loads(line)
        text = head + text
        uri = f"file:///nowhere/{number}.yaml"
        server.send(method="textDocument/didOpen", params={"textDocument": {
            "uri": uri, "languageId": "yaml", "version": 1, "text": text.replace("|", ""),
        }})
        if what == "errors":
            found = server.until(lambda message: message.get("method") == "textDocument/publishDiagnostics"
                                 and message["params"]["uri"] == uri)
            found = [one["message"] for one in found["params"]["diagnostics"]]
        else:
            where = {"textDocument": {"uri": uri}, "position": position(text)}
            if what == "hover":
                answer = server.ask("textDocument/hover", where)
                found = [answer["contents"]["value"]] if answer else []
            else:
                answer = server.ask("textDocument/completion", where)
                found = [json.dumps([one["label"], one.get("insertText"), one.get("documentation")])
                         for one in answer["items"]]
        print(json.dumps([name, found]), flush=True)
    server.ask("shutdown", None)
    server.send(method="exit")
    server.process.wait(timeout=20)


main()

"""A model that follows a script: the two interfaces that Claude Code (messages) and Codex (responses) speak, on 127.0.0.1.

usage: model.py SCRIPT LOG     prints its port; ends with its standard input.

SCRIPT is JSON: {"steps": [STEP…], "end": "last words"}. A STEP is {"edit": [FILE, OLD, NEW]} or {"run": "command"}; the agent's own tools do
it. "look_for" is a list of texts: LOG says which of them a request holds. Which step is next is told by how many tools' results the conversation holds, so that no state is kept here. LOG gets a JSON line a request.
"""

import http.server
import json
import sys
import threading

script = json.load(open(sys.argv[1]))
log = open(sys.argv[2], "a", buffering=1)


def sse(events):
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


# Messages: one step is one tool_use. Files are read before they are edited, as the tool asks.
def claude_calls():
    for step in script["steps"]:
        if "edit" in step:
            path, old, new = step["edit"]
            yield "Read", {"file_path": path}
            yield "Edit", {"file_path": path, "old_string": old, "new_string": new}
        else:
            yield "Bash", {"command": step["run"], "description": "a step of the test"}


def messages(request):
    results = sum(
        1
        for message in request["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part.get("type") == "tool_result"
    )
    calls = list(claude_calls())
    tools = [tool.get("name") for tool in request.get("tools", [])]
    if "Bash" in tools and results < len(calls):
        name, value = calls[results]
        block = {"type": "tool_use", "id": f"toolu_{results:04}", "name": name, "input": value}
        start, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(value)}
        stop = "tool_use"
    else:
        block = {"type": "text", "text": script["end"]}
        start, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": script["end"]}
        stop = "end_turn"
    usage = {"input_tokens": 10, "output_tokens": 10}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": request.get("model"), "usage": usage}
    if not request.get("stream"):
        return json.dumps({**message, "content": [block], "stop_reason": stop, "stop_sequence": None}).encode(), "application/json"
    return sse(
        [
            {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "stop_sequence": None}},
            {"type": "content_block_start", "index": 0, "content_block": start},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 10}},
            {"type": "message_stop"},
        ]
    ), "text/event-stream"


# Responses: by whichever tool is offered; newer ones have a single one, which runs a program in JavaScript that calls the others.
def codex_call(step, tools):
    if "edit" in step:
        path, old, new = step["edit"]
        patch = f"*** Begin Patch\n*** Update File: {path}\n@@\n-{old}\n+{new}\n*** End Patch\n"
        if "exec" in tools:
            return {"type": "custom_tool_call", "name": "exec", "input": f"text(await tools.apply_patch({json.dumps(patch)}))"}
        if tools.get("apply_patch") == "custom":
            return {"type": "custom_tool_call", "name": "apply_patch", "input": patch}
        command = f"apply_patch <<'PATCH'\n{patch}PATCH"
    else:
        command = step["run"]
    if "exec" in tools:
        return {"type": "custom_tool_call", "name": "exec", "input": f"text(await tools.exec_command({json.dumps({'cmd': command})}))"}
    for name, value in [("exec_command", {"cmd": command}), ("shell_command", {"command": command}), ("shell", {"command": ["sh", "-c", command]})]:
        if name in tools:
            return {"type": "function_call", "name": name, "arguments": json.dumps(value)}
    raise SystemExit(f"none of the tools runs a command: {tools}")


# All tools that a request names: at its top, or as an item of the input, there in groups.
def codex_tools(request):
    groups = [request.get("tools") or []]
    groups += [item["tools"] for item in request["input"] if item.get("type") == "additional_tools"]
    return {tool.get("name"): (tool["type"], group.get("name")) for tools in groups for group in tools for tool in group.get("tools", [group])}


def responses(request):
    items = request["input"] if isinstance(request["input"], list) else []
    results = sum(1 for item in items if item.get("type") in ("function_call_output", "custom_tool_call_output"))
    tools = codex_tools(request)
    if tools and results < len(script["steps"]):
        call = codex_call(script["steps"][results], {name: kind for name, (kind, _) in tools.items()})
        group = tools[call["name"]][1]
        if group != call["name"]:
            call["namespace"] = group
        item = {**call, "id": f"fc_{results}", "call_id": f"call_{results}", "status": "completed"}
    else:
        content = [{"type": "output_text", "text": script["end"], "annotations": []}]
        item = {"type": "message", "id": "msg_1", "role": "assistant", "content": content, "status": "completed"}
    response = {"id": f"resp_{results}", "object": "response", "model": request.get("model")}
    usage = {"input_tokens": 10, "output_tokens": 10, "total_tokens": 20}
    return sse(
        [
            {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {**response, "status": "completed", "output": [item], "usage": usage}},
        ]
    ), "text/event-stream"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body, kind="application/json"):
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        self.note(None)
        self.answer(200 if self.path.startswith("/v1/models") else 404, b'{"data":[],"models":[]}')

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.split("?")[0]
        try:
            request = json.loads(body)
        except ValueError:
            request = None
        self.note(request, [words for words in script.get("look_for", []) if words in body.decode()])
        if path == "/v1/messages" and request:
            self.answer(200, *messages(request))
        elif path == "/v1/messages/count_tokens":
            self.answer(200, b'{"input_tokens":10}')
        elif path == "/v1/responses" and request:
            self.answer(200, *responses(request))
        else:
            self.answer(404, b"{}")

    def note(self, request, found=()):
        request = request or {}
        said = {key: request.get(key) for key in ("model", "stream")}
        said["tools"] = [tool.get("name") or tool.get("type") for tool in request.get("tools") or []]
        said["last"] = (request.get("messages") or request.get("input") or [None])[-1]
        said["found"] = list(found)
        said["key"] = self.headers.get("x-api-key") or self.headers.get("authorization")
        log.write(json.dumps({"request": f"{self.command} {self.path}", **said}) + "\n")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of docs/protocol.md from the server's own description of its protocol.

    build/release/berth describe --json | python3 docs/protocol_tables.py
"""
import json
import pathlib
import re
import sys

BEGIN = "<!-- tables: made by docs/protocol_tables.py -->"
END = "<!-- end of tables -->"


def rows_of(fields):
    rows = ["| member | type | | meaning |", "|---|---|---|---|"]
    for field in fields:
        need = "required" if field["required"] else ""
        rows.append(f"| `{field['name']}` | {shown(field['type'])} | {need} | "
                    f"{field.get('meaning', '')} |")
    return rows


def shown(kind):
    if kind.startswith("queued|running|exited"):
        return "[state](#states-of-a-job)" + kind[len(kind.rstrip("?")):]
    return "`" + kind.replace("|", "\\|") + "`"


def base_type(text):
    return re.sub(r"^map<text,|>$|\?|\[\]", "", text)


def table_of(description, types, name):
    fields = types[name]
    if not fields:
        return ["No members.", ""]
    for earlier in types:
        if earlier == name:
            break
        if types[earlier] == fields and len(fields) > 4:
            return [f"The members of `{earlier}`.", ""]
    return rows_of(fields) + [""]


def tables(description):
    types = {each["name"]: each["fields"] for each in description["types"]}
    replies = [each["reply"] for each in description["operations"]]
    nested = {base_type(f["type"]) for fields in types.values() for f in fields} & set(types)
    shared = {name for name in types if name in nested or replies.count(name) > 1}
    lines = ["## Operations", "", "| op | | request | reply |", "|---|---|---|---|"]
    for op in description["operations"]:
        lines.append(f"| [`{op['op']}`](#{op['op']}) | {op['meaning']} | `{op['request']}` | "
                     f"`{op['reply']}` |")
    lines.append("")
    for op in description["operations"]:
        lines += [f"### `{op['op']}`", "", op["meaning"], "", f"Request `{op['request']}`:", ""]
        lines += table_of(description, types, op["request"])
        if op["reply"] in shared:
            lines += [f"Reply [`{op['reply']}`](#types).", ""]
        else:
            lines += [f"Reply `{op['reply']}`:", ""] + table_of(description, types, op["reply"])
    lines += ["## Types", "", "Types that more than one message uses.", ""]
    for name in types:
        if name in shared:
            lines += [f"### `{name}`", ""] + table_of(description, types, name)
    lines += ["## Errors", "", "Numbers and names are frozen.", "", "| code | name |", "|---|---|"]
    lines += [f"| {each['code']} | `{each['name']}` |" for each in description["errors"]]
    return "\n".join(lines) + "\n"


def main():
    page = pathlib.Path(__file__).with_name("protocol.md")
    text = page.read_text()
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    page.write_text(f"{before}{BEGIN}\n\n{tables(json.load(sys.stdin))}\n{END}{after}")


if __name__ == "__main__":
    main()

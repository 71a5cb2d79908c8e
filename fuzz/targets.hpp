// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/// What is fuzzed: functions that take bytes of a peer. Each aborts when a promise does not hold.
namespace berth::fuzz {

/// Decodes as every message type; what decodes must come back from its own encoding.
void messages(std::span<const char> data);
/// A stream of frames from a hostile guest, cut and decoded.
void frames(std::span<const char> data);
/// A settings file.
void settings_file(std::span<const char> data);
/// A program of any language through the rules, and its text through redaction.
void programs(std::span<const char> data);
/// A segment of the log, and a record in it.
void journal_log(std::span<const char> data);

/// A body of HTTP in JSON: as every message a client may send, and as the shim's own requests.
void http_json(std::span<const char> data);
/// A target of a request line, and a form whose content type is the first line.
void http_form(std::span<const char> data);
/// A model's text, in which programs are looked for.
void model_text(std::span<const char> data);
/// An answer of a model's endpoint, in the dialect of Ollama or of OpenAI, streamed or whole.
void ollama_answer(std::span<const char> data);
void openai_answer(std::span<const char> data);
/// Frames of a ZeroMQ message, each after its length in one byte, and the call in the last.
void zmq_message(std::span<const char> data);
/// Packets of a spawner's peer, each after its length in one byte, read from a real socket.
void packets(std::span<const char> data);

/// A roles' configuration that a client posts, and as changes on disk.
void roles_config(std::span<const char> data);

/// An answer of Firecracker's API, cut in two where the first byte says.
void firecracker_answer(std::span<const char> data);
/// What Firecracker says of its guest's memory.
void firecracker_memory(std::span<const char> data);

/// An archive of a machine's files.
void archives(std::span<const char> data);

/// What a program in a machine says to the proxy, and the same text as a place of the list.
void egress_request(std::span<const char> data);

} // namespace berth::fuzz

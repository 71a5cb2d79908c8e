// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/roles.hpp"

#include <string>
#include <string_view>
#include <variant>
#include <vector>

/// What a model can do on its agent's machine: the tools' descriptions, and what is read out of a
/// model's calls. Plain logic.
namespace berth {

/// Runs a program.
struct execute_code_call {
  std::string language; // canonical
  std::string code;
  bool kernel = false;
  std::string context;
};

/// Reads a part of a file.
struct read_file_call {
  std::string path;
  std::uint64_t offset = 0;
};

/// Writes a whole file, or adds to it.
struct write_file_call {
  std::string path;
  std::string content;
  bool append = false;
};

/// Lists a directory.
struct list_files_call {
  std::string path;
  std::uint32_t depth = 1;
};

/// Takes the machine back: `before_last_run`, `last_success`, or a snapshot's id.
struct rollback_call {
  std::string to;
};

using tool_request = std::variant<execute_code_call, read_file_call, write_file_call,
                                  list_files_call, rollback_call>;

/// A call as it was understood, or what was wrong with it, in words that a model can act on.
struct parsed_call {
  tool_request request;
  std::string fault;
};

/// The tools of a role as JSON text, in the form that both dialects take.
std::string tool_list(const role_info& role);

/// Reads a call. Never throws, whatever a model wrote. Languages are checked against the role's.
parsed_call parse_call(const tool_call& call, const role_info& role);

/// Why a role does not let a program run; empty: it does.
std::string refusal_of_code(const execute_code_call& call, const role_info& role);

/// What the model is told beside the role's own prompt: where its programs run, and that what they
/// print is data. By tools, by text, or not at all.
std::string acting_prompt(const role_info& role, acting how);

} // namespace berth

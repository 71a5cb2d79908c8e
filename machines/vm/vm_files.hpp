// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/vm/vm_state.hpp"

#include <memory>
#include <string>

/// Templates and states of virtual machines on disk. Each file ends with the SHA-256 of all before
/// it, and is believed when that is right; what is damaged is refused. For a thread that may wait.
///
///   template   head, runs, devices, facts (JSON), pages, digest
///   state      head, devices, pages (a file of vm_memory.hpp), digest
///
/// A state is bound to its template: it holds what differs.
namespace berth::machines::vm_files {

/// What became of a file: `why` is empty when it is good.
struct outcome {
  std::string why;
  std::uint64_t bytes = 0;
};

/// Writes a template to a path, at once or not at all, and says in `id` how states name it.
outcome write_template(const std::string& path, const vm_template& from, std::string& id);
/// Reads one; its memory is sealed.
std::shared_ptr<vm_template> read_template(const std::string& path, std::string& why);

/// Writes a state of the template to a file that is open for writing.
outcome write_state(int to, const vm_state& from, const vm_template& of,
                    const std::string& template_id, std::uint64_t bytes_max);
/// A state as it was read.
struct saved {
  vm_state state;
  std::string key;
  std::string template_id;
};
outcome read_state(int from, saved& to);

} // namespace berth::machines::vm_files

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/machines/suite/kinds.hpp"

/// What test cases do with a machine of whatever kind.
namespace berth::test {

/// Runs a program, and gives all that it wrote.
std::string say(const running& in, const std::string& language, const std::string& code);
std::string bash(const running& in, const std::string& code);
std::string python(const running& in, const std::string& code);

/// Waits for the hello; a machine of other limits may need a template of its own.
bool is_up(const running& in);
/// Whether its guest answers a ping.
bool answers(const running& in);
/// Ends a machine that lives.
void destroy(const running& in);
/// Waits for the end of a machine that was not asked to; `about` is in what its owner is told.
void check_lost(const running& one, const std::string& about);

/// Brings the guest to rest, as a slot does before a step on files. `number`: interpreters park
/// copies of themselves under it.
void rest(const running& in, machines::checkpoint_number number = 0, bool force = false);
void go_on(const running& in, machines::checkpoint_number number = 0);
void freeze(const running& in, machines::checkpoint_number number);
void roll_back(const running& in, machines::checkpoint_number number);
/// Saves a state to a file that nobody else sees.
std::shared_ptr<const owned_fd> save(const running& from, machines::checkpoint_number number,
                                     machines::checkpoint_number since);

void open_kernel(const running& in, const std::string& context, const std::string& language);
/// Runs a cell in a live interpreter, and gives all that it wrote, or why it was refused.
std::string cell(const running& in, const std::string& context, const std::string& code);

/// Cgroups of the host that bear the name of an instance.
std::size_t groups_of(const std::string& instance);
std::size_t mounts_of_this_process();
/// Memory of this process, which plays the server, in bytes.
std::uint64_t memory_of_this_process();
/// Waits for a process that may not be this one's child to end.
bool has_ended(pid_t pid);

} // namespace berth::test

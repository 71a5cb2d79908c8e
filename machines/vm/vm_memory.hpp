// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

/// The memory of a virtual machine as another process sees it.
///
/// A machine's memory is a mapping of its template's, which nobody can write any more; what the
/// machine wrote are pages of its own. Those are its state: to save it, they are read; to bring it
/// back, they are put into a new machine of the same template that has not run yet. Cost and size
/// go by what was written, not by how large the memory is.
namespace berth::machines::vm_memory {

/// The name of the memory file, by which its mapping is found.
inline constexpr const char* file_name = "berth-vm-memory";
/// The largest memory of a machine.
inline constexpr std::uint64_t bytes_max = 64ULL << 30;

/// Pages next to each other.
struct run {
  std::uint64_t offset = 0; ///< in the machine's memory
  std::uint64_t bytes = 0;
};

/// A file of pages: this, then the runs, then from `data_at` the pages of each run in order.
struct head {
  std::uint64_t magic = 0;
  std::uint64_t runs = 0;
  std::uint64_t data_at = 0;
  std::uint64_t memory_bytes = 0;
};
inline constexpr std::uint64_t magic = 0x3153'4547'4150'4d56; // "VMPAGES1"

/// What went wrong: errno, and a text; 0: nothing.
struct outcome {
  int error = 0;
  std::string text;
  std::uint64_t bytes = 0;
};

/// Writes the process's own pages to the file. `proc` is an open /proc.
outcome read_pages(int proc, pid_t pid, int to, std::uint64_t bytes_max);
/// Puts the pages of such a file into the process's memory.
outcome write_pages(int proc, pid_t pid, int from);

/// Writes what of a memory differs from another's of the same size. Both are files, at most that
/// long.
outcome differences(int base, int memory, std::uint64_t memory_bytes, int to);
/// Makes a whole memory in an empty file: what `base` holds, and the pages of such a file over it
/// (-1: none). What is nothing stays a hole.
outcome assemble(int base, int pages, int to);

/// Reads the runs of a file of pages; empty `why` where they are sound for a memory of that size.
std::vector<run> read_runs(int from, std::uint64_t memory_bytes, head& about, std::string& why);

} // namespace berth::machines::vm_memory

// SPDX-License-Identifier: Apache-2.0
#include "store/snapshots.hpp"

#include "config/log.hpp"
#include "messages/codec.hpp"
#include "store/checksum.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>

namespace berth {

namespace {

constexpr const char* manifest_suffix = ".state";
constexpr const char* archive_suffix = ".archive";
/// A manifest holds a session's and a snapshot's descriptions, whose texts are bounded.
constexpr std::size_t manifest_bytes_max = limits::mib;
constexpr std::string_view magic = "berthST";
constexpr char format_version = 1;

/// The head of a manifest: what it is, and the checksum of the body that follows.
struct manifest_head {
  std::array<char, 8> magic{};
  std::uint64_t body_bytes = 0;
  std::uint64_t body_sum = 0;
};
static_assert(sizeof(manifest_head) == 24);

manifest_head head_of(std::span<const char> body) {
  manifest_head head;
  std::ranges::copy(magic, head.magic.begin());
  head.magic.back() = format_version;
  head.body_bytes = body.size();
  head.body_sum = checksum({body});
  return head;
}

expected<saved_state> parse_manifest(std::span<const char> data) {
  manifest_head head;
  if (data.size() < sizeof head)
    return fail(ec::store_failed, "its manifest is cut short");
  std::memcpy(&head, data.data(), sizeof head);
  auto body = data.subspan(sizeof head);
  bool ours = std::string_view{head.magic.data(), magic.size()} == magic;
  if (ours && head.magic.back() > format_version)
    return fail(ec::store_failed, "it was written by a newer Berth");
  if (!ours || head.body_bytes != body.size() || head.body_sum != checksum({body})
      || head.magic.back() != format_version)
    return fail(ec::store_failed, "its manifest is damaged");
  auto state = decode<saved_state>(body);
  if (!state)
    return fail(ec::store_failed, "its manifest: " + state.why().text());
  return std::move(*state);
}

std::int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

/// Whether an id can be a file's name. Ids are made by the server; a manifest may be a stranger's.
bool is_file_name(const std::string& id) {
  auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'
           || c == '_' || c == '.';
  };
  return !id.empty() && id.size() <= limits::name_bytes_max - 16 && id.front() != '.'
         && std::ranges::all_of(id, allowed);
}

} // namespace

// --- opening -------------------------------------------------------------------------------------

expected<snapshots> snapshots::open(const std::string& directory, const snapshot_settings& bounds) {
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed)
    return fail(ec::store_failed, "snapshots: cannot make " + directory + ": " + failed.message());
  snapshots store{directory, bounds};
  if (error why = store.read_all())
    return why;
  return store;
}

error snapshots::read_all() {
  std::error_code failed;
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator{directory_, failed})
    names.push_back(file.path().filename().string());
  if (failed)
    return fail(ec::store_failed, "snapshots: cannot read " + directory_ + ": " + failed.message());
  for (const auto& name : names)
    if (name.ends_with(manifest_suffix))
      read_state(name);
  for (const auto& name : names) {
    bool orphan = name.ends_with(archive_suffix)
                  && catalog_.find(name.substr(0, name.size() - strlen(archive_suffix))) == nullptr;
    if (orphan || name.ends_with(part_suffix))
      std::filesystem::remove(directory_ + "/" + name, failed); // what stays is never read
  }
  return {};
}

/// Reads one manifest. What is wrong with it or its archive becomes the state's damage.
void snapshots::read_state(const std::string& name) {
  std::string id = name.substr(0, name.size() - strlen(manifest_suffix));
  saved_state state;
  auto data = read_whole(directory_ + "/" + name, manifest_bytes_max);
  auto parsed = data ? parse_manifest(*data) : expected<saved_state>{data.error()};
  if (parsed && parsed->info.snapshot != id)
    parsed = fail(ec::store_failed, "its manifest is that of " + parsed->info.snapshot);
  if (parsed)
    state = std::move(*parsed);
  else
    state.info.damage = to_refusal(parsed.error()).detail;
  state.info.snapshot = id;
  // A copy of interpreters died with the server that parked it.
  state.info.content = snapshot_content::files;
  state.info.contexts.clear();
  std::error_code failed;
  if (parsed && state.archive_bytes > 0) {
    auto size = std::filesystem::file_size(archive_of(id), failed);
    if (failed)
      state.info.damage = "its archive is missing";
    else if (size != state.archive_bytes)
      state.info.damage = "its archive has " + std::to_string(size) + " bytes instead of "
                          + std::to_string(state.archive_bytes);
  }
  catalog_.put(std::move(state));
}

std::string snapshots::archive_of(const std::string& state) const {
  return directory_ + "/" + state + archive_suffix;
}

// --- saving --------------------------------------------------------------------------------------

expected<owned_fd> snapshots::begin(const std::string& state) {
  if (!is_file_name(state))
    return fail(ec::malformed, "snapshot: " + state + " cannot be an id");
  if (catalog_.find(state) != nullptr || begun_.contains(state))
    return fail(ec::already_exists, "snapshot: the id " + state + " is in use");
  std::string part = archive_of(state) + part_suffix;
  owned_fd file{::open(part.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  if (!file)
    return file_error("snapshot: cannot make", part);
  begun_.insert(state);
  return file;
}

void snapshots::abandon(const std::string& state) {
  if (begun_.erase(state) > 0)
    unlink((archive_of(state) + part_suffix).c_str());
}

expected<std::vector<std::string>> snapshots::finish(saved_state& state) {
  const std::string id = state.info.snapshot;
  if (!is_file_name(id) || catalog_.find(id) != nullptr)
    return fail(ec::already_exists, "snapshot: the id " + id + " is in use or cannot be one");
  state.archive_bytes = 0;
  state.archive_sum = 0;
  error failed;
  if (!state.base.empty())
    if (auto base = catalog_.chain(state.base); !base)
      failed = base.error();
  if (!failed && begun_.contains(id))
    failed = seal(state);
  if (!failed && state.archive_bytes > bounds_.bytes_max)
    failed = fail(ec::no_capacity, "snapshot: it is larger than snapshots.bytes_max");
  if (!failed) {
    if (state.sequence == 0)
      state.sequence = catalog_.last_sequence() + 1;
    state.info.durable = true;
    state.info.durable_at_ms = now_ms();
    state.info.size_bytes = state.archive_bytes;
    failed = write_manifest(state);
  }
  if (failed) {
    abandon(id);
    unlink(archive_of(id).c_str());
    return failed;
  }
  begun_.erase(id);
  catalog_.put(state);
  if (auto evicted = make_room(state))
    return std::move(*evicted);
  catalog_.erase(id);
  unlink((directory_ + "/" + id + manifest_suffix).c_str());
  unlink(archive_of(id).c_str());
  return fail(ec::no_capacity,
              "snapshot: all " + std::to_string(bounds_.bytes_max)
                  + " bytes of snapshots.bytes_max are held by what live sessions need");
}

/// Puts a written archive on disk under its name, with its size and checksum in the state.
error snapshots::seal(saved_state& state) {
  std::string path = archive_of(state.info.snapshot);
  std::string part = path + part_suffix;
  owned_fd file{::open(part.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file)
    return file_error("snapshot: cannot open", part);
  if (fdatasync(file.get()) != 0)
    return file_error("snapshot: cannot sync", part);
  off_t size = lseek(file.get(), 0, SEEK_END);
  if (size <= 0)
    return fail(ec::store_failed, "snapshot: its archive was not written");
  auto sum = checksum_of(file, static_cast<std::uint64_t>(size));
  if (!sum)
    return sum.error();
  if (std::rename(part.c_str(), path.c_str()) != 0)
    return file_error("snapshot: cannot rename", part);
  state.archive_bytes = static_cast<std::uint64_t>(size);
  state.archive_sum = *sum;
  return sync_directory(directory_); // the archive's name before the manifest that tells of it
}

error snapshots::write_manifest(const saved_state& state) {
  bytes body = encode(state);
  manifest_head head = head_of(body);
  bytes whole(sizeof head + body.size());
  std::memcpy(whole.data(), &head, sizeof head);
  std::ranges::copy(body, whole.begin() + sizeof head);
  if (error why = replace_file(directory_, state.info.snapshot + manifest_suffix, whole))
    return why;
  return sync_directory(directory_);
}

// --- making room ---------------------------------------------------------------------------------

void snapshots::drop_unneeded(std::vector<std::string> among) {
  for (const std::string& id : catalog_.unneeded(std::move(among))) {
    // The manifest first: an archive alone is swept, a manifest alone would look like damage.
    unlink((directory_ + "/" + id + manifest_suffix).c_str());
    unlink(archive_of(id).c_str());
    catalog_.erase(id);
  }
}

error snapshots::mark_deleted(const std::string& snapshot) {
  saved_state before = *catalog_.find(snapshot);
  saved_state state = catalog_.without(snapshot, live_.contains(before.info.session));
  catalog_.put(state);
  drop_unneeded({snapshot}); // when nothing needs it, it goes without a byte being written
  if (catalog_.find(snapshot) == nullptr || !state.info.damage.empty())
    return {};
  error failed = write_manifest(state);
  if (failed)
    catalog_.put(std::move(before));
  return failed;
}

/// Lets the oldest snapshots go until a session's are few enough and all fit the budget. Nothing
/// when that cannot be: then none went.
std::optional<std::vector<std::string>> snapshots::make_room(const saved_state& added) {
  const std::string& session = added.info.session;
  std::vector<std::string> evicted;
  if (catalog_.bytes() > bounds_.bytes_max
      || catalog_.snapshots(session).size() > bounds_.per_session_max) {
    auto plan = catalog_.room_plan(live_, session, bounds_.per_session_max, bounds_.bytes_max);
    if (!plan)
      return std::nullopt;
    evicted = std::move(*plan);
  }
  // What the session would have woken up with is the new state now, not the one before.
  drop_unneeded(catalog_.ids(session));
  for (const std::string& next : evicted) {
    log::info("snapshots", "evicts one", {{"snapshot", next}});
    if (error why = mark_deleted(next))
      log::warn("snapshots", "cannot evict one", {{"why", describe_error(why)}});
  }
  return evicted;
}

error snapshots::remove(const std::string& snapshot) {
  const saved_state* state = catalog_.find(snapshot);
  if (state == nullptr || state->deleted || state->kind != saved_kind::snapshot)
    return fail(ec::not_found, "snapshot: there is none with the id " + snapshot);
  if (error why = mark_deleted(snapshot))
    return why;
  return sync_directory(directory_);
}

void snapshots::keep(const std::string& session, bool alive) {
  if (alive) {
    live_.insert(session);
    return;
  }
  live_.erase(session);
  catalog_.end_session(session);
  drop_unneeded(catalog_.ids(session));
}

void snapshots::keep_only(const std::set<std::string>& sessions) {
  live_ = sessions;
  std::set<std::string> over;
  for (const auto& [id, state] : catalog_.all())
    if (!sessions.contains(state.info.session))
      over.insert(state.info.session);
  for (const std::string& session : over)
    if (!session.empty()) // a manifest that cannot be read names no session, and stays to be seen
      keep(session, false);
  drop_unneeded(catalog_.ids());
}

// --- restoring -----------------------------------------------------------------------------------

expected<opened_chain> snapshots::open_chain(const std::string& state) {
  auto links = catalog_.chain(state);
  if (!links)
    return fail(static_cast<ec>(links.error().code()),
                "snapshot " + state + ": " + to_refusal(links.error()).detail);
  opened_chain opened;
  for (const saved_state* link : *links)
    opened.states.push_back(*link);
  for (const saved_state& link : opened.states) {
    const std::string& id = link.info.snapshot;
    if (link.archive_bytes == 0) {
      opened.files.emplace_back();
      continue;
    }
    owned_fd file{::open(archive_of(id).c_str(), O_RDONLY | O_CLOEXEC)};
    std::string why;
    if (!file) {
      why = "its archive: " + std::string{std::strerror(errno)};
    } else if (auto sum = checksum_of(file, link.archive_bytes); !sum) {
      why = "its archive: " + to_refusal(sum.error()).detail;
    } else if (*sum != link.archive_sum) {
      why = "its archive's checksum does not match";
    }
    if (!why.empty()) {
      blame(id, why);
      return fail(ec::store_failed,
                  "snapshot " + state + ": "
                      + (id == state ? why : "it builds on " + id + ", which is damaged: " + why));
    }
    opened.files.push_back(std::move(file));
  }
  return opened;
}

/// Keeps what was found wrong, so that lists tell it.
void snapshots::blame(const std::string& state, const std::string& why) {
  log::error("snapshots", "one is damaged", {{"snapshot", state}, {"why", why}});
  catalog_.blame(state, why);
}

} // namespace berth

// SPDX-License-Identifier: Apache-2.0
#include "actors/spool.hpp"

#include "config/log.hpp"
#include "store/spool.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <memory>

namespace berth {

namespace {

/// SPOOL: output that is too much for memory.
class spool_state {
public:
  static constexpr const char* name = "berth.spool";

  spool_actor::behavior_type make_behavior(std::shared_ptr<spool> files) {
    files_ = std::move(files);
    return {
        [this](const output_chunk& x) { return on_append(x); },
        [this](const read_spool& x) { return on_read(x); },
        [this](const end_spool& x) { files_->end(x.job); },
        [this](const drop_spool& x) { files_->remove(x.job); },
    };
  }

private:
  /// What cannot be kept is lost, and counted by whoever reads the answer: the job goes on.
  output_taken on_append(const output_chunk& chunk) {
    auto size = files_->append(chunk.job, chunk.stream, chunk.data);
    if (size)
      return {.bytes_taken = chunk.data.size()};
    log::warn("spool", "cannot keep output",
              {{"job", chunk.job}, {"why", describe_error(size.error())}});
    return {.bytes_taken = 0};
  }

  spooled on_read(const read_spool& request) {
    auto data = files_->read(request.job, request.stream, request.offset,
                             static_cast<std::size_t>(request.bytes_max));
    return {.data = data ? std::move(*data) : bytes{}};
  }

  std::shared_ptr<spool> files_;
};

spool_actor::behavior_type spool_behavior(spool_actor::stateful_pointer<spool_state> self,
                                          std::shared_ptr<spool> files) {
  return state_of(self).make_behavior(std::move(files));
}

} // namespace

expected<spool_actor> spawn_spool(caf::actor_system& system, const settings& config) {
  auto files = spool::open(config.runtime_dir + "/spool", config.spool_bytes_max);
  if (!files)
    return files.error();
  auto shared = std::make_shared<spool>(std::move(*files));
  return system.spawn<caf::detached>(spool_behavior, std::move(shared));
}

} // namespace berth

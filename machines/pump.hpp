// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/reactor.hpp"
#include "messages/fd.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace berth::machines {

/// Moves bytes between two connected sockets that do not block, both ways, each way through a
/// bounded buffer: who does not read is not read from. An end of file goes on to the other side, so
/// half a connection may live on. All on the reactor's thread.
class pump : public std::enable_shared_from_this<pump> {
public:
  struct settings {
    std::size_t buffer_bytes = 32 * 1024;
    /// So many bytes of the near end are passed on, and none after them; nothing: all.
    std::optional<std::uint64_t> near_bytes;
    /// When the far end has said all nothing is passed on to it any more, and what the near end
    /// still says is dropped until it is over: to close on it would take back what it was told.
    bool ends_with_far = false;
  };

  pump(reactor& loop, owned_fd near, owned_fd far, const settings& how);

  /// Begins, with bytes for the far end that were said or made before, and bytes of the near end
  /// that were read already. Either may be more than the buffer has room for.
  void open(std::string_view for_far, std::string_view of_near, std::function<void()> on_end);
  /// Ends without telling.
  void close();

  /// When a byte was passed on last.
  reactor::clock::time_point last_moved() const { return last_moved_; }
  /// Nothing is left but to wait for the near end to go.
  bool only_waits() const { return how_.ends_with_far && flows_[1].shut; }
  /// Bytes passed on to the far end, and to the near one.
  std::uint64_t sent_far() const { return flows_[0].sent; }
  std::uint64_t sent_near() const { return flows_[1].sent; }

private:
  /// One way.
  struct flow {
    std::vector<char> data;
    std::size_t begin = 0;
    std::optional<std::uint64_t> left;
    std::uint64_t sent = 0;
    bool ended = false; // its source said all
    bool shut = false;  // and its sink was told
    bool tells_end = true;

    std::size_t waiting() const { return data.size() - begin; }
    bool open() const { return !ended && left != 0U; }
  };

  void on_events(std::size_t side, std::uint32_t events);
  bool fill(std::size_t from);
  bool drop_near();
  bool drain(std::size_t from);
  bool is_over() const;
  void take(flow& to, std::string_view bytes);
  void rewatch();
  void end();

  reactor& loop_;
  const settings how_;
  /// Near, far.
  std::array<owned_fd, 2> ends_;
  std::array<reactor::token, 2> watches_{};
  std::array<std::uint32_t, 2> watched_{};
  /// From near to far, from far to near.
  std::array<flow, 2> flows_;
  bool near_gone_ = false;
  std::function<void()> on_end_;
  reactor::clock::time_point last_moved_ = reactor::clock::now();
};

} // namespace berth::machines

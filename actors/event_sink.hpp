// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/fields.hpp"

#include <string>
#include <string_view>

namespace berth {

/// Where events leave the actors' world. Implemented by the bridge that publishes them; called from
/// any thread, never blocks.
class event_sink {
public:
  virtual ~event_sink() = default;

  /// Whether anybody has subscribed to anything. Saves the work of encoding when nobody listens.
  virtual bool wanted() const = 0;
  /// Publishes one event. A full queue drops the oldest: a subscriber sees the gap by the offsets.
  virtual void publish(std::string topic, bytes body) = 0;
};

} // namespace berth

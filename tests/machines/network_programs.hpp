// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/machines/fixture.hpp"

#include <cstdint>
#include <string>

/// What programs in machines with a network do to find out how far it goes.
namespace berth::test {

/// What a Python program says, on both of its outputs.
inline std::string python(machines::machine& in, heard& listener, const std::string& code) {
  ran result = run(in, listener, "python", code);
  CHECK(result.ended);
  return result.out + result.err;
}

/// Goes before what fetches from the host's loopback by the proxy: where no_proxy is heeded, the
/// machine's own is meant. It must be set.
inline constexpr const char* by_proxy =
    "import os\n"
    "for name in ('no_proxy', 'NO_PROXY'):\n  os.environ.pop(name)\n";

/// Says how a URL ends, as programs fetch one.
inline std::string fetch(const std::string& url) {
  return "import urllib.request\n"
         "try:\n  print(urllib.request.urlopen('"
         + url
         + "', timeout=60).status)\n"
           "except OSError as e:\n  print(e)\n";
}

/// Says whether a connection past the proxy comes about.
inline std::string connect_past(const std::string& host, std::uint16_t port) {
  return "import socket\n"
         "try:\n  socket.create_connection(('"
         + host + "', " + std::to_string(port)
         + "), 5)\n  print('reached')\n"
           "except OSError as e:\n  print('not reached')\n";
}

} // namespace berth::test

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace berth::guest {

/// What a JavaScript program asks of the interpreter that is to run it.
struct node_needs {
  /// It is an ECMAScript module by its text.
  bool module = false;
  /// A forked interpreter cannot run it: it is a module, or starts workers.
  bool cold = false;
};

/// Reads a program's text, line by line; a guess that errs towards cold.
node_needs needs_of(std::string_view code);

} // namespace berth::guest

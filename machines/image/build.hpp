// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/image/image.hpp"
#include "machines/image/kernel.hpp"
#include "machines/image/recipe.hpp"

#include <string>

namespace berth::machines {

/// How an image is to be made.
struct build_options {
  /// Images are made in `<data_dir>/images`.
  std::string data_dir;
  /// Berth's run-time files; those of virtual machines are beside it, see inside_dir().
  std::string lib_dir;
  /// `minimal`, `full`, or a file with a recipe.
  std::string recipe = "minimal";
  /// `own` or `debian`.
  std::string kernel = "own";
  /// Take packages anew, which Debian may have newer ones of, even though nothing else changed.
  bool refresh = false;
};

/// Where Berth's process 1, its recipes and the kernel's configuration are.
std::string inside_dir(const std::string& lib_dir);

/// Makes an image from Debian's packages, or finds that it is there already. Everything that takes
/// time is kept in `<data_dir>/images/cache`. One build at a time in a data directory; another one
/// waits. A build that is ended leaves no half image.
expected<image> build_image(const build_options& options, const build_progress& progress);

} // namespace berth::machines

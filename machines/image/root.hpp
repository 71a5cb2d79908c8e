// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/image/kernel.hpp"
#include "machines/image/recipe.hpp"

#include <string>

namespace berth::machines {

/// The read-only root of an image: /usr and /etc of a Debian system with a recipe's packages, its
/// files, and places to mount on. Nothing else of the system is of use in a machine.
struct built_root {
  /// Changes with anything that went into it but the versions of packages.
  std::string key;
  std::string path;
};

/// Makes it below `cache`, or finds it there unless `refresh`.
expected<built_root> build_root(const std::string& cache, const image_recipe& recipe, bool refresh,
                                const build_progress& progress);

} // namespace berth::machines

// SPDX-License-Identifier: Apache-2.0
#include "machines/image/recipe.hpp"

#include "config/languages.hpp"
#include "config/reader.hpp"
#include "messages/limits.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace berth::machines {

namespace {

using config::json;

constexpr std::uintmax_t recipe_bytes_max = 1 << 20;
constexpr std::size_t packages_max = 1'000;
constexpr std::string_view fixed_place = "/usr/";
constexpr std::string_view writable_places[] = {"/home/agent/", "/work/"};

bool all_of(std::string_view text, std::string_view more) {
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')
           || more.find(c) != std::string_view::npos;
  });
}

/// As Debian writes them; a version may follow.
bool good_package(std::string_view name) {
  return all_of(name, "+-.=:~_ABCDEFGHIJKLMNOPQRSTUVWXYZ") && name.size() <= 200
         && name.front() != '-' && name.front() != '+';
}

bool is_writable_place(std::string_view path) {
  return std::ranges::any_of(writable_places,
                             [&](std::string_view place) { return path.starts_with(place); });
}

bool good_place(const std::string& path) {
  return std::filesystem::path{path}.lexically_normal() == path && path.back() != '/'
         && (path.starts_with(fixed_place) || is_writable_place(path));
}

void read_files(const json& from, const std::string& at, std::map<std::string, std::string>& to,
                std::string& fault) {
  for (const auto& [place, source] : from.items())
    if (source.is_string())
      to[place] = source.get<std::string>();
    else if (fault.empty())
      fault = at + ": must be an object of texts";
}

std::string fault_of(const image_recipe& recipe) {
  if (!all_of(recipe.name, "-_") || recipe.name.size() > 40 || recipe.name.front() == '-')
    return "name: must be of a-z, 0-9, - and _, at most 40 characters";
  if (recipe.base.empty() && !all_of(recipe.suite, "-"))
    return "suite: must be a release of Debian, for example bookworm";
  if (!recipe.base.empty() && (recipe.name == "minimal" || recipe.name == "full"))
    return "name: belongs to an image of Berth's own";
  if (!recipe.base.empty() && recipe.base != "minimal" && recipe.base != "full")
    return "base: must be minimal or full";
  if (recipe.packages.size() > packages_max)
    return "packages: at most " + std::to_string(packages_max);
  for (const auto& package : recipe.packages)
    if (!good_package(package))
      return "packages: " + package + " is not the name of a package";
  for (const auto& language : recipe.languages)
    if (std::ranges::find(languages, language) == languages.end())
      return "languages: " + language + " is unknown";
  for (const auto& [place, from] : recipe.files) {
    std::error_code error;
    if (!good_place(place))
      return "files: " + place + " must be below /usr, /home/agent or /work";
    if (!std::filesystem::exists(from, error))
      return "files: " + from + " is not there";
  }
  if (recipe.start.size() > limits::mib)
    return "start: is too long";
  return {};
}

} // namespace

expected<image_recipe> parse_recipe(std::string_view text, const std::string& directory) {
  config::parsed parsed = config::parse(text);
  if (!parsed.fault.empty())
    return fail(ec::malformed, parsed.fault);
  image_recipe recipe;
  std::string fault;
  config::object_reader reader{parsed.root, "", fault};
  reader.member("name", recipe.name);
  reader.member("base", recipe.base);
  reader.member("suite", recipe.suite);
  reader.member("packages", recipe.packages);
  reader.member("languages", recipe.languages);
  reader.member_with("files", [&](const json& files, const std::string& at) {
    read_files(files, at, recipe.files, fault);
  });
  reader.member("start", recipe.start);
  reader.member("memory_mib", recipe.memory_mib);
  reader.refuse_unknown();
  for (auto& [place, from] : recipe.files)
    from = (std::filesystem::path{directory} / from).lexically_normal();
  if (fault.empty())
    fault = fault_of(recipe);
  if (!fault.empty())
    return fail(ec::malformed, fault);
  return recipe;
}

expected<image_recipe> load_recipe(const std::string& path) {
  std::error_code error;
  auto size = std::filesystem::file_size(path, error);
  std::ifstream in{path};
  std::string text{std::istreambuf_iterator<char>{in}, {}};
  if (error || !in)
    return fail(ec::not_found, path + ": cannot be read");
  if (size > recipe_bytes_max)
    return fail(ec::too_large, path + ": is too large for a recipe");
  auto recipe = parse_recipe(text, std::filesystem::path{path}.parent_path().string());
  if (!recipe)
    return fail(ec::malformed, path + ": " + to_refusal(recipe.error()).detail);
  return recipe;
}

image_recipe combine(const image_recipe& base, const image_recipe& recipe) {
  image_recipe both = recipe;
  both.suite = base.suite;
  both.packages.insert(both.packages.begin(), base.packages.begin(), base.packages.end());
  for (const auto& language : base.languages)
    if (std::ranges::find(both.languages, language) == both.languages.end())
      both.languages.push_back(language);
  both.memory_mib = std::max(base.memory_mib, recipe.memory_mib);
  return both;
}

std::string start_program(const image_recipe& recipe) {
  bool waiting = std::ranges::any_of(recipe.files,
                                     [](const auto& one) { return is_writable_place(one.first); });
  if (!waiting)
    return recipe.start;
  return "cp -r " + std::string{waiting_files} + "/. /\n" + recipe.start;
}

} // namespace berth::machines

// SPDX-License-Identifier: Apache-2.0
#include "app/show.hpp"
#include "config/settings.hpp"
#include "machines/image/build.hpp"

#include <unistd.h>

namespace berth {

namespace {

/// One image, as it is listed.
struct image_line {
  std::string name;
  std::string version;
  bool current = false;
  std::string kernel;
  std::string languages;
  std::uint64_t bytes = 0;
  std::string created;
  std::string directory;
  /// Only of `verify`: what is wrong with it, or empty.
  std::string damage;

  static constexpr const char* type_name = "image_line";
  static constexpr auto fields() {
    return std::tuple{
        field("name", &image_line::name),           field("version", &image_line::version),
        field("current", &image_line::current),     field("kernel", &image_line::kernel),
        field("languages", &image_line::languages), field("bytes", &image_line::bytes),
        field("created", &image_line::created),     field("directory", &image_line::directory),
        opt("damage", &image_line::damage)};
  }
};

struct image_list {
  std::vector<image_line> images;

  static constexpr const char* type_name = "image_list";
  static constexpr auto fields() { return std::tuple{field("images", &image_list::images)}; }
};

/// Where images and run-time files are.
settings places(const image_command& options) {
  settings values;
  values.data_dir = options.data_dir;
  fill_paths(values);
  return values;
}

bool is_current(const machines::image& one) {
  const std::string link =
      one.directory.substr(0, one.directory.rfind('-')); // the version has no hyphen
  char target[512];
  ssize_t size = ::readlink(link.c_str(), target, sizeof target);
  return size > 0
         && one.directory.ends_with("/" + std::string{target, static_cast<std::size_t>(size)});
}

image_line line_of(const machines::image& one) {
  image_line line{.name = one.manifest.name,
                  .version = one.manifest.version,
                  .current = is_current(one),
                  .kernel = one.manifest.kernel_origin + " " + one.manifest.kernel_release,
                  .languages = {},
                  .bytes = 0,
                  .created = one.manifest.created,
                  .directory = one.directory,
                  .damage = {}};
  for (const auto& language : one.manifest.languages)
    line.languages += (line.languages.empty() ? "" : ",") + language;
  for (const auto& [name, file] : one.manifest.files)
    line.bytes += file.bytes;
  return line;
}

void show(const image_line& one) {
  std::printf("%c %-12s %s  %4llu MiB  %-22s %-32s %s\n", one.current ? '*' : ' ', one.name.c_str(),
              one.version.c_str(), static_cast<unsigned long long>(one.bytes >> 20),
              one.kernel.c_str(), one.languages.c_str(), one.created.c_str());
}

void show_all(const image_list& list, bool json) {
  if (json)
    print_json(list);
  else
    for (const auto& one : list.images)
      show(one);
}

} // namespace

int command_image_build(const common_options& common, const image_command& options) {
  const settings values = places(options);
  auto made = machines::build_image({.data_dir = values.data_dir,
                                     .lib_dir = values.lib_dir,
                                     .recipe = options.name,
                                     .kernel = options.kernel,
                                     .refresh = options.refresh},
                                    [](std::string_view what) {
                                      std::fprintf(stderr, "%.*s\n", static_cast<int>(what.size()),
                                                   what.data());
                                    });
  if (!made)
    return terminal::report(to_refusal(made.error()).detail);
  show_all({{line_of(*made)}}, common.json);
  return 0;
}

int command_image_list(const common_options& common, const image_command& options) {
  image_list list;
  for (const auto& one : machines::list_images(places(options).data_dir))
    list.images.push_back(line_of(one));
  if (list.images.empty() && !common.json)
    std::fprintf(stderr, "no image; `berth image build` makes one\n");
  show_all(list, common.json);
  return 0;
}

int command_image_remove(const common_options&, const image_command& options) {
  if (auto failed = machines::remove_image(places(options).data_dir, options.name))
    return terminal::report(to_refusal(failed).detail);
  return 0;
}

int command_image_verify(const common_options& common, const image_command& options) {
  image_list list;
  bool found = false;
  bool sound = true;
  for (const auto& one : machines::list_images(places(options).data_dir)) {
    image_line line = line_of(one);
    if (!options.name.empty() && options.name != line.name
        && options.name != line.name + "-" + line.version)
      continue;
    found = true;
    if (auto damage = machines::verify_image(one, true))
      line.damage = to_refusal(damage).detail;
    sound = sound && line.damage.empty();
    if (!common.json)
      std::printf("%s %s-%s%s%s\n", line.damage.empty() ? "sound  " : "DAMAGED", line.name.c_str(),
                  line.version.c_str(), line.damage.empty() ? "" : ": ", line.damage.c_str());
    list.images.push_back(std::move(line));
  }
  if (common.json)
    show_all(list, true);
  if (!found)
    return terminal::report("there is no such image");
  return sound ? 0 : 1;
}

} // namespace berth

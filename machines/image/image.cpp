// SPDX-License-Identifier: Apache-2.0
#include "machines/image/image.hpp"

#include "config/reader.hpp"
#include "machines/image/digest.hpp"
#include "messages/fd.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace berth::machines {

namespace fs = std::filesystem;
using config::json;

namespace {

constexpr std::uintmax_t manifest_bytes_max = 64 << 10;
/// Notes of a verification that found all sound.
constexpr const char* verified_file = "verified";

constexpr const char* file_names[] = {image_kernel, image_initrd, image_root};

bool is_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits
         && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool good_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && name.front() != '-'
         && std::ranges::all_of(name, [](char c) {
              return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
            });
}

/// A name with a version is split; a bare name has none.
std::pair<std::string, std::string> split_name(std::string_view name) {
  std::size_t dash = name.rfind('-');
  if (dash != std::string_view::npos && is_hex(name.substr(dash + 1), image_version_digits))
    return {std::string{name.substr(0, dash)}, std::string{name.substr(dash + 1)}};
  return {std::string{name}, {}};
}

std::vector<std::string> image_places(const std::string& data_dir) {
  std::vector<std::string> places{data_dir + "/images"};
  if (places.front() != system_images_dir)
    places.emplace_back(system_images_dir);
  return places;
}

expected<std::string> read_text(const std::string& path, std::uintmax_t bytes_max) {
  std::ifstream in{path, std::ios::binary};
  if (!in)
    return fail(ec::store_failed, path + ": cannot be read");
  std::string text(bytes_max + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > bytes_max)
    return fail(ec::store_failed, path + ": is larger than it can be");
  return text;
}

expected<image> read_image(const std::string& directory) {
  auto text = read_text(directory + "/" + image_manifest_file, manifest_bytes_max);
  if (!text)
    return text.error();
  auto manifest = parse_manifest(*text);
  if (!manifest)
    return fail(ec::store_failed,
                directory + "/" + image_manifest_file + ": " + describe_error(manifest.error()));
  return image{directory, std::move(*manifest)};
}

/// What tells that a file was not touched: contents cannot change without the last of these.
std::string marks_of(const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0)
    return {};
  std::ostringstream text;
  text << facts.st_dev << ' ' << facts.st_ino << ' ' << facts.st_size << ' ' << facts.st_mtim.tv_sec
       << '.' << facts.st_mtim.tv_nsec << ' ' << facts.st_ctim.tv_sec << '.'
       << facts.st_ctim.tv_nsec;
  return text.str();
}

std::string verification_note(const image& which) {
  std::string note;
  for (const char* name : file_names)
    note += std::string{name} + " " + which.manifest.files.at(name).sha256 + " "
            + marks_of(which.directory + "/" + name) + "\n";
  return note;
}

error check_file(const image& which, const std::string& name) {
  const image_file& wanted = which.manifest.files.at(name);
  const std::string path = which.directory + "/" + name;
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0)
    return fail(ec::store_failed, path + ": " + std::strerror(errno));
  if (static_cast<std::uint64_t>(facts.st_size) != wanted.bytes)
    return fail(ec::store_failed, path + ": has " + std::to_string(facts.st_size)
                                      + " bytes instead of " + std::to_string(wanted.bytes));
  auto found = digest_file(path);
  if (!found)
    return found.error();
  if (found->sha256 != wanted.sha256)
    return fail(ec::store_failed, path + ": is damaged, its SHA-256 is " + found->sha256
                                      + " instead of " + wanted.sha256);
  return {};
}

void read_files(const json& from, std::map<std::string, image_file>& to, std::string& fault) {
  if (!from.is_object()) {
    fault = "files: must be an object";
    return;
  }
  for (const auto& [name, value] : from.items()) {
    config::object_reader reader{value, "files." + name, fault};
    image_file& one = to[name];
    reader.member("sha256", one.sha256);
    reader.member("bytes", one.bytes);
    reader.refuse_unknown();
  }
}

std::string fault_of(const image_manifest& manifest) {
  if (!good_name(manifest.name))
    return "name: must be of a-z, 0-9, - and _";
  if (manifest.files.size() != std::size(file_names))
    return "files: must be vmlinux, initrd.cpio and root.img";
  for (const char* name : file_names) {
    auto found = manifest.files.find(name);
    if (found == manifest.files.end() || !is_hex(found->second.sha256, 64))
      return std::string{"files."} + name + ": must have a SHA-256";
  }
  if (manifest.version != image_hash(manifest.files).substr(0, image_version_digits))
    return "version: does not belong to the files' hashes";
  return {};
}

} // namespace

std::string image_hash(const std::map<std::string, image_file>& files) {
  digest sum;
  for (const auto& [name, file] : files) {
    sum.add_text(name);
    sum.add_text(file.sha256);
  }
  return sum.hex();
}

expected<image_manifest> parse_manifest(std::string_view text) {
  config::parsed parsed = config::parse(text);
  if (!parsed.fault.empty())
    return fail(ec::malformed, parsed.fault);
  image_manifest manifest;
  std::string fault;
  config::object_reader reader{parsed.root, "", fault};
  reader.member("name", manifest.name);
  reader.member("variant", manifest.variant);
  reader.member("version", manifest.version);
  reader.member("kernel_release", manifest.kernel_release);
  reader.member("kernel_origin", manifest.kernel_origin);
  reader.member("command_line", manifest.command_line);
  reader.member("devices_by_command_line", manifest.devices_by_command_line);
  reader.member("network", manifest.network);
  reader.member("guest", manifest.guest);
  reader.member("languages", manifest.languages);
  reader.member("start", manifest.start);
  reader.member("memory_mib", manifest.memory_mib);
  reader.member("inputs", manifest.inputs);
  reader.member("created", manifest.created);
  reader.member_with("files", [&](const json& files, const std::string&) {
    read_files(files, manifest.files, fault);
  });
  reader.refuse_unknown();
  if (fault.empty())
    fault = fault_of(manifest);
  if (!fault.empty())
    return fail(ec::malformed, fault);
  return manifest;
}

std::string manifest_text(const image_manifest& manifest) {
  json files = json::object();
  for (const auto& [name, file] : manifest.files)
    files[name] = {{"sha256", file.sha256}, {"bytes", file.bytes}};
  json root{{"name", manifest.name},
            {"variant", manifest.variant},
            {"version", manifest.version},
            {"kernel_release", manifest.kernel_release},
            {"kernel_origin", manifest.kernel_origin},
            {"command_line", manifest.command_line},
            {"devices_by_command_line", manifest.devices_by_command_line},
            {"network", manifest.network},
            {"guest", manifest.guest},
            {"languages", manifest.languages},
            {"start", manifest.start},
            {"memory_mib", manifest.memory_mib},
            {"inputs", manifest.inputs},
            {"created", manifest.created},
            {"files", std::move(files)}};
  return root.dump(2) + "\n";
}

expected<image> find_image(const std::string& data_dir, std::string_view name) {
  if (!good_name(name))
    return fail(ec::malformed, "an image's name is of a-z, 0-9, - and _");
  for (const auto& place : image_places(data_dir)) {
    std::error_code error;
    fs::path path = fs::canonical(fs::path{place} / name, error);
    if (error || !fs::is_directory(path, error))
      continue;
    auto found = read_image(path.string());
    if (!found)
      return found.error();
    if (auto damage = verify_image(*found))
      return damage;
    return found;
  }
  return fail(ec::not_found, "there is no image " + std::string{name}
                                 + ": make it by `berth image build " + split_name(name).first
                                 + "`");
}

std::vector<image> list_images(const std::string& data_dir) {
  std::vector<image> all;
  for (const auto& place : image_places(data_dir)) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator{place, error}) {
      if (entry.is_symlink(error) || !entry.is_directory(error)
          || split_name(entry.path().filename().string()).second.empty())
        continue;
      if (auto found = read_image(entry.path().string()))
        all.push_back(std::move(*found));
    }
  }
  std::ranges::stable_sort(all, [](const image& a, const image& b) {
    if (a.manifest.name != b.manifest.name)
      return a.manifest.name < b.manifest.name;
    return a.manifest.created > b.manifest.created;
  });
  return all;
}

error verify_image(const image& which, bool anew) {
  const std::string path = which.directory + "/" + verified_file;
  std::string note = verification_note(which);
  if (!anew) {
    auto noted = read_text(path, manifest_bytes_max);
    if (noted && *noted == note)
      return {};
  }
  for (const char* name : file_names)
    if (auto damage = check_file(which, name))
      return damage;
  // An image that is not ours to write in is hashed each time.
  const std::string part = path + "." + std::to_string(::getpid());
  std::error_code ignored;
  if (std::ofstream out{part, std::ios::binary}; out << note) {
    out.close();
    fs::rename(part, path, ignored);
  }
  return {};
}

error remove_image(const std::string& data_dir, std::string_view name) {
  if (!good_name(name))
    return fail(ec::malformed, "an image's name is of a-z, 0-9, - and _");
  auto [bare, version] = split_name(name);
  const fs::path place = data_dir + "/images";
  std::error_code error;
  std::vector<fs::path> doomed;
  for (const auto& entry : fs::directory_iterator{place, error}) {
    auto [its_name, its_version] = split_name(entry.path().filename().string());
    if (its_name == bare && (version.empty() || its_version == version) && !its_version.empty()
        && !entry.is_symlink(error))
      doomed.push_back(entry.path());
  }
  if (doomed.empty())
    return fail(ec::not_found, "there is no image " + std::string{name} + " in " + place.string());
  for (const auto& path : doomed) {
    fs::path link = place / bare;
    if (fs::is_symlink(link, error) && fs::read_symlink(link, error) == path.filename())
      fs::remove(link, error);
    fs::remove_all(path, error);
    if (error)
      return fail(ec::store_failed, "cannot remove " + path.string() + ": " + error.message());
  }
  return {};
}

} // namespace berth::machines

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/caf.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

/// What virtual machines boot from: a kernel, a small initial file system with Berth's own
/// programs, and a read-only root with the languages.
///
/// An image is a directory `<images>/<name>-<version>`; `<images>/<name>` is a symbolic link to the
/// one in use. It never changes once it has its name: a new build is a new directory.
namespace berth::machines {

/// The files of an image, by the names they have in its directory.
inline constexpr const char* image_kernel = "vmlinux";
inline constexpr const char* image_initrd = "initrd.cpio";
inline constexpr const char* image_root = "root.img";
inline constexpr const char* image_manifest_file = "manifest.json";

/// Where images of the whole host may be, besides those of a data directory.
inline constexpr const char* system_images_dir = "/var/lib/berth/images";

struct image_file {
  /// 64 hexadecimal digits.
  std::string sha256;
  std::uint64_t bytes = 0;

  bool operator==(const image_file&) const = default;
};

/// What manifest.json says.
struct image_manifest {
  /// What it is called by: `minimal`, `full`, or a user's own.
  std::string name;
  /// minimal or full: what it is made from.
  std::string variant;
  /// The first 16 digits of a hash over all of its files' hashes.
  std::string version;
  /// Release of the kernel, and where it is from: `debian` or `own`.
  std::string kernel_release;
  std::string kernel_origin;
  /// What the kernel must be told, whatever machine it runs in; the machine adds its own words.
  std::string command_line;
  /// Whether the kernel finds virtio-mmio devices by its command line, which goes without ACPI.
  bool devices_by_command_line = false;
  /// Whether its programs and its kernel know how to give a machine a network.
  bool network = false;
  /// SHA-256 of the guest program in the initial file system.
  std::string guest;
  std::vector<std::string> languages;
  /// What is run once, as a Bash program, before the machine is frozen as a template. May be empty.
  std::string start;
  /// Least memory in MiB in which it boots and runs.
  std::uint64_t memory_mib = 0;
  /// Hash of all that went into it: a build of the same is not built again.
  std::string inputs;
  /// When it was made, as ISO 8601 in UTC.
  std::string created;
  std::map<std::string, image_file> files;

  bool operator==(const image_manifest&) const = default;
};

/// An image that is there.
struct image {
  std::string directory;
  image_manifest manifest;

  std::string kernel() const { return directory + "/" + image_kernel; }
  std::string initrd() const { return directory + "/" + image_initrd; }
  std::string root() const { return directory + "/" + image_root; }
};

/// Reads a manifest; says what is wrong with one that cannot be used.
expected<image_manifest> parse_manifest(std::string_view text);
std::string manifest_text(const image_manifest& manifest);

/// Finds an image by its name (`minimal`), or by name and version (`minimal-0123456789abcdef`), in
/// `<data_dir>/images` and then in system_images_dir, and verifies it. `not_found` says how to make
/// one; `store_failed` says which file is damaged.
expected<image> find_image(const std::string& data_dir, std::string_view name);

/// All images there, verified or not, by name and then newest first.
std::vector<image> list_images(const std::string& data_dir);

/// Checks an image's files against its manifest. What was found sound is noted in the image's
/// directory with each file's inode, size and times, and believed as long as those are the same,
/// unless `anew`.
error verify_image(const image& which, bool anew = false);

/// Removes an image, by name and version, or by name all of it. Files in use stay with their users.
error remove_image(const std::string& data_dir, std::string_view name);

/// What the kernel of an image is told, whatever the machine. `emulated`: by a processor that is
/// software; Debian's kernel then cannot find out how fast its clock is, which is the host's, when
/// the host is busy, and would wait for it for ever.
std::string kernel_words(const image_manifest& manifest, bool emulated);

/// The hash that an image's version is the beginning of.
std::string image_hash(const std::map<std::string, image_file>& files);

/// Length of a version.
inline constexpr std::size_t image_version_digits = 16;

} // namespace berth::machines

// SPDX-License-Identifier: Apache-2.0
#include "machines/image/kernel.hpp"

#include "machines/image/command.hpp"
#include "machines/image/digest.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <thread>
#include <unistd.h>

namespace berth::machines {

namespace fs = std::filesystem;

namespace {

constexpr const char* debian_package = "linux-image-cloud-amd64";
constexpr const char* source_package = "linux-source-6.12";
/// What a virtual machine needs of Debian's kernel; what these need comes before them.
constexpr const char* wanted_modules[] = {
    "virtio_mmio", "virtio_blk",     "virtio_console",
    "virtio-rng",  "virtio_balloon", "vmw_vsock_virtio_transport",
    "virtio_net",  "erofs",          "overlay"};
/// Change with the way in which kernels are made here, and with the modules.
constexpr std::string_view recipe_version = "1";
constexpr std::string_view debian_recipe_version = "2";

std::string read_text(const std::string& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

bool write_text(const std::string& path, std::string_view text) {
  std::ofstream out{path, std::ios::binary};
  out << text;
  out.close();
  return out.good();
}

/// The version of a package that apt would take.
expected<std::string> candidate(const std::string& package) {
  auto told = run_command({.words = {"apt-cache", "policy", package}});
  if (!told)
    return told.error();
  std::istringstream in{*told};
  for (std::string line; std::getline(in, line);) {
    auto at = line.find("Candidate: ");
    if (at != std::string::npos && line.find("(none)") == std::string::npos)
      return line.substr(at + std::strlen("Candidate: "));
  }
  return fail(ec::not_found, "apt knows no package " + package + ": run `apt-get update`");
}

/// The package with the kernel itself, which the other one always depends on.
expected<std::string> kernel_package() {
  auto told = run_command({.words = {"apt-cache", "depends", "--important", debian_package}});
  if (!told)
    return told.error();
  std::istringstream in{*told};
  for (std::string line; std::getline(in, line);) {
    auto at = line.find("Depends: linux-image-");
    if (at != std::string::npos)
      return line.substr(at + std::strlen("Depends: "));
  }
  return fail(ec::not_found, std::string{"apt knows no kernel behind "} + debian_package
                                 + ": run `apt-get update`");
}

/// Downloads a package and unpacks it in a directory. Returns nothing, or why not.
error fetch_package(const std::string& package, const std::string& version,
                    const std::string& directory) {
  auto done = run_command(
      {.words = {"apt-get", "download", "-q", package + "=" + version}, .directory = directory});
  if (!done)
    return done.error();
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator{directory, problem})
    if (entry.path().extension() == ".deb") {
      auto unpacked = run_command({.words = {"dpkg-deb", "-x", entry.path().string(), directory}});
      fs::remove(entry.path(), problem);
      return unpacked ? error{} : unpacked.error();
    }
  return fail(ec::internal, "apt-get download " + package + " left no package");
}

/// A directory that goes with its object, whatever happens.
class work_directory {
public:
  explicit work_directory(std::string path)
    : path_(std::move(path)) {
    std::error_code problem;
    fs::remove_all(path_, problem);
    fs::create_directories(path_, problem);
  }
  ~work_directory() {
    std::error_code problem;
    fs::remove_all(path_, problem);
  }
  work_directory(const work_directory&) = delete;
  work_directory& operator=(const work_directory&) = delete;
  const std::string& path() const { return path_; }

private:
  std::string path_;
};

/// A module and what it needs, deepest first.
error collect_module(const std::map<std::string, std::string>& files, const std::string& name,
                     std::vector<std::string>& order, std::set<std::string>& seen) {
  std::string key = name;
  std::ranges::replace(key, '-', '_');
  if (!seen.insert(key).second)
    return {};
  auto found = files.find(key);
  if (found == files.end())
    return fail(ec::internal, "the kernel has no module " + name);
  // Its section of facts has lines such as depends=virtio,virtio_ring, each ended by a NUL.
  std::string content = read_text(found->second);
  std::size_t at = content.find(std::string_view{"\0depends=", 9});
  if (at != std::string::npos) {
    std::istringstream needs{std::string{content.c_str() + at + 9}};
    for (std::string one; std::getline(needs, one, ',');)
      if (auto problem = collect_module(files, one, order, seen))
        return problem;
  }
  order.push_back(found->second);
  return {};
}

/// Puts the wanted modules into `directory`, with their order.
error take_modules(const std::string& tree, const std::string& directory) {
  std::map<std::string, std::string> files;
  std::error_code problem;
  for (const auto& entry : fs::recursive_directory_iterator{tree, problem})
    if (entry.path().extension() == ".ko") {
      std::string name = entry.path().stem().string();
      std::ranges::replace(name, '-', '_');
      files[name] = entry.path().string();
    }
  std::vector<std::string> order;
  std::set<std::string> seen;
  for (const char* name : wanted_modules)
    if (auto missing = collect_module(files, name, order, seen))
      return missing;
  fs::create_directories(directory, problem);
  std::string names;
  for (const auto& path : order) {
    const std::string name = fs::path{path}.filename().string();
    names += name + "\n";
    if (!fs::copy_file(path, fs::path{directory} / name, problem))
      return fail(ec::store_failed, "cannot copy " + path + ": " + problem.message());
  }
  return write_text(directory + "/order", names)
             ? error{}
             : fail(ec::store_failed, "cannot write " + directory + "/order");
}

/// A kernel that is in the cache already.
std::optional<built_kernel> cached(const std::string& directory, const std::string& key, bool own) {
  built_kernel kernel{.key = key,
                      .release = read_text(directory + "/release"),
                      .vmlinux = directory + "/vmlinux",
                      .modules = {},
                      .devices_by_command_line = own};
  std::error_code problem;
  if (kernel.release.empty() || !fs::is_regular_file(kernel.vmlinux, problem))
    return std::nullopt;
  std::istringstream order{read_text(directory + "/modules/order")};
  for (std::string name; std::getline(order, name);)
    kernel.modules.push_back(directory + "/modules/" + name);
  return kernel;
}

/// Moves what was made to its place in the cache.
expected<built_kernel> keep(const std::string& made, const std::string& directory,
                            const std::string& key, bool own) {
  std::error_code problem;
  fs::remove_all(directory, problem);
  fs::rename(made, directory, problem);
  if (problem)
    return fail(ec::store_failed, "cannot keep " + directory + ": " + problem.message());
  if (auto kernel = cached(directory, key, own))
    return *kernel;
  return fail(ec::internal, directory + " is not a kernel");
}

/// What a bzImage's payload is packed with, by its first bytes.
struct packing {
  std::string_view magic;
  std::vector<std::string> unpack;
  const char* package;
};

const packing* find_packing(std::string_view payload) {
  static const std::vector<packing> all = {{{"\xfd"
                                             "7zXZ",
                                             5},
                                            {"xz", "-dc", "--single-stream"},
                                            "xz-utils"},
                                           {{"\x02\x21\x4c\x18", 4}, {"lz4", "-dc"}, "lz4"},
                                           {{"\x28\xb5\x2f\xfd", 4}, {"zstd", "-dcq"}, "zstd"},
                                           {{"\x1f\x8b", 2}, {"gzip", "-dc"}, "gzip"}};
  auto found =
      std::ranges::find_if(all, [&](const packing& one) { return payload.starts_with(one.magic); });
  return found == all.end() ? nullptr : &*found;
}

std::uint32_t number_at(const std::string& data, std::size_t at) {
  std::uint32_t value = 0;
  if (at + sizeof value <= data.size())
    std::memcpy(&value, data.data() + at, sizeof value);
  return value;
}

error build_in(const std::string& tree, const std::string& configuration,
               const build_progress& progress) {
  const std::string processors = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
  // What the kernel says about its build must not tell when and where.
  const std::vector<std::string> fixed{"KBUILD_BUILD_TIMESTAMP=@0", "KBUILD_BUILD_USER=berth",
                                       "KBUILD_BUILD_HOST=berth", "KBUILD_BUILD_VERSION=1"};
  auto make = [&](std::vector<std::string> targets) {
    std::vector<std::string> words{"make", "-s", "-j" + processors};
    words.insert(words.end(), fixed.begin(), fixed.end());
    words.insert(words.end(), targets.begin(), targets.end());
    auto done = run_command({.words = words, .directory = tree});
    return done ? error{} : done.error();
  };
  if (auto failed = make({"tinyconfig"}))
    return failed;
  auto merged =
      run_command({.words = {"scripts/kconfig/merge_config.sh", "-m", ".config", configuration},
                   .directory = tree});
  if (!merged)
    return merged.error();
  if (auto failed = make({"olddefconfig"}))
    return failed;
  progress("building the kernel on " + processors + " processors, which takes minutes, once");
  return make({"vmlinux"});
}

} // namespace

error extract_vmlinux(const std::string& image, const std::string& to) {
  // Fields of the boot protocol: sectors of the set-up code, then where the packed kernel is.
  const std::string data = read_text(image);
  if (data.size() < 0x260 || data.compare(0x202, 4, "HdrS") != 0)
    return fail(ec::malformed, image + " is no kernel");
  auto sectors = static_cast<std::uint32_t>(static_cast<unsigned char>(data[0x1f1]));
  std::size_t start = (std::size_t{sectors == 0 ? 4 : sectors} + 1) * 512 + number_at(data, 0x248);
  std::size_t size = number_at(data, 0x24c);
  if (size < 8 || start + size > data.size())
    return fail(ec::malformed, image + " ends before its kernel does");
  // Its last four bytes are the unpacked size.
  const std::string payload = data.substr(start, size - 4);
  const packing* packed = find_packing(payload);
  if (packed == nullptr)
    return fail(ec::unsupported, image + " is packed in a way that is not known here");
  if (!has_command(packed->unpack.front()))
    return fail(ec::unsupported, "install the package " + std::string{packed->package});
  const std::string part = to + ".packed";
  if (!write_text(part, payload))
    return fail(ec::store_failed, "cannot write " + part);
  auto done = run_command({.words = packed->unpack, .input = part, .output = to});
  std::error_code problem;
  fs::remove(part, problem);
  if (!done)
    return done.error();
  if (fs::file_size(to, problem) != number_at(data, start + size - 4))
    return fail(ec::malformed, image + " does not unpack to its size");
  return {};
}

expected<built_kernel> debian_kernel(const std::string& cache, const build_progress& progress) {
  auto package = kernel_package();
  if (!package)
    return package.error();
  auto version = candidate(*package);
  if (!version)
    return version.error();
  digest sum;
  for (std::string_view text :
       {debian_recipe_version, std::string_view{*package}, std::string_view{*version}})
    sum.add_text(text);
  const std::string key = "debian-" + sum.hex().substr(0, 16);
  const std::string directory = cache + "/kernel-" + key;
  if (auto kernel = cached(directory, key, false))
    return *kernel;
  progress("taking the kernel of " + *package + " " + *version);
  work_directory work{directory + ".work." + std::to_string(::getpid())};
  if (auto failed = fetch_package(*package, *version, work.path()))
    return failed;
  const std::string release = package->substr(std::strlen("linux-image-"));
  const std::string made = work.path() + "/made";
  std::error_code problem;
  fs::create_directories(made, problem);
  if (auto failed = extract_vmlinux(work.path() + "/boot/vmlinuz-" + release, made + "/vmlinux"))
    return failed;
  if (auto failed = take_modules(work.path() + "/lib/modules/" + release, made + "/modules"))
    return failed;
  if (!write_text(made + "/release", release))
    return fail(ec::store_failed, "cannot write " + made);
  return keep(made, directory, key, false);
}

expected<built_kernel> own_kernel(const std::string& cache, const std::string& configuration,
                                  const build_progress& progress) {
  auto version = candidate(source_package);
  if (!version)
    return version.error();
  digest sum;
  for (const std::string& text : {std::string{recipe_version}, *version, read_text(configuration)})
    sum.add_text(text);
  const std::string key = "own-" + sum.hex().substr(0, 16);
  const std::string directory = cache + "/kernel-" + key;
  if (auto kernel = cached(directory, key, true))
    return *kernel;
  for (const auto& [tool, its_package] : std::map<std::string, std::string>{{"make", "make"},
                                                                            {"gcc", "gcc"},
                                                                            {"flex", "flex"},
                                                                            {"bison", "bison"},
                                                                            {"bc", "bc"},
                                                                            {"xz", "xz-utils"}})
    if (!has_command(tool))
      return fail(ec::unsupported, "to build a kernel, install the package " + its_package);
  progress(std::string{"taking the kernel's source, "} + source_package + " " + *version);
  work_directory work{directory + ".work." + std::to_string(::getpid())};
  if (auto failed = fetch_package(source_package, *version, work.path()))
    return failed;
  auto unpacked =
      run_command({.words = {"tar", "xf", std::string{"usr/src/"} + source_package + ".tar.xz"},
                   .directory = work.path()});
  if (!unpacked)
    return unpacked.error();
  const std::string tree = work.path() + "/" + source_package;
  if (auto failed = build_in(tree, configuration, progress))
    return failed;
  const std::string made = work.path() + "/made";
  std::error_code problem;
  fs::create_directories(made, problem);
  fs::copy_file(tree + "/vmlinux", made + "/vmlinux", problem);
  std::string release = read_text(tree + "/include/config/kernel.release");
  std::erase(release, '\n');
  if (problem || !write_text(made + "/release", release))
    return fail(ec::store_failed, "cannot keep the kernel: " + problem.message());
  return keep(made, directory, key, true);
}

} // namespace berth::machines

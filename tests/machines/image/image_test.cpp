// SPDX-License-Identifier: Apache-2.0
#include "machines/image/digest.hpp"
#include "machines/image/image.hpp"
#include "machines/image/initrd.hpp"
#include "machines/image/recipe.hpp"
#include "machines/inside/boot.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>
#include <sys/stat.h>

#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>

using namespace berth;
using namespace berth::machines;
namespace fs = std::filesystem;

namespace {

void write(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path{path}.parent_path());
  std::ofstream{path, std::ios::binary} << text;
}

/// An image that is one by all rules, though nothing would boot from it.
image make_image(const std::string& data_dir, const std::string& name, const std::string& kernel) {
  image made;
  made.manifest.name = made.manifest.variant = name;
  const std::string part = data_dir + "/images/part";
  for (const auto& [file, text] : std::map<std::string, std::string>{
           {image_kernel, kernel}, {image_initrd, "initial"}, {image_root, "root"}}) {
    write(part + "/" + file, text);
    made.manifest.files[file] = {digest_of(text), text.size()};
  }
  made.manifest.version = image_hash(made.manifest.files).substr(0, image_version_digits);
  write(part + "/" + image_manifest_file, manifest_text(made.manifest));
  made.directory = data_dir + "/images/" + name + "-" + made.manifest.version;
  fs::rename(part, made.directory);
  fs::remove(data_dir + "/images/" + name);
  fs::create_directory_symlink(name + "-" + made.manifest.version, data_dir + "/images/" + name);
  return made;
}

std::string fault(const error& why) {
  return to_refusal(why).detail;
}

std::string fault_of_recipe(const std::string& text) {
  auto recipe = parse_recipe(text, "/");
  return recipe ? "" : fault(recipe.error());
}

} // namespace

TEST_CASE("A manifest says the same when it was written and read") {
  temp_dir home;
  image made = make_image(home.path(), "minimal", "kernel");
  made.manifest.languages = {"python", "bash"};
  made.manifest.start = "echo \"x\"\n";
  made.manifest.memory_mib = 256;
  made.manifest.devices_by_command_line = true;
  made.manifest.network = true;
  auto read = parse_manifest(manifest_text(made.manifest));
  REQUIRE(read);
  CHECK(*read == made.manifest);
}

TEST_CASE("A manifest that is not one is refused, and the member named") {
  temp_dir home;
  const image made = make_image(home.path(), "minimal", "kernel");
  auto fault_with = [&](auto change) {
    image_manifest wrong = made.manifest;
    change(wrong);
    auto read = parse_manifest(manifest_text(wrong));
    return read ? std::string{} : fault(read.error());
  };
  CHECK(fault_with([](auto& m) { m.name = "../minimal"; }).starts_with("name:"));
  CHECK(fault_with([](auto& m) { m.version = "0123456789abcdef"; }).starts_with("version:"));
  CHECK(fault_with([](auto& m) { m.files.erase("root.img"); }).starts_with("files:"));
  CHECK(fault_with([](auto& m) { m.files["root.img"].sha256 = "beef"; }).starts_with("files.root"));
  CHECK(!parse_manifest("{"));
  CHECK(!parse_manifest("[]"));
  CHECK(!parse_manifest(R"({"name": "minimal", "unknown": 1})"));
}

TEST_CASE("An image is found by its name and by its version") {
  temp_dir home;
  const image old = make_image(home.path(), "minimal", "old kernel");
  const image made = make_image(home.path(), "minimal", "kernel");
  auto found = find_image(home.path(), "minimal");
  REQUIRE(found);
  CHECK(found->manifest == made.manifest);
  auto older = find_image(home.path(), "minimal-" + old.manifest.version);
  REQUIRE(older);
  CHECK(older->manifest == old.manifest);
  CHECK(list_images(home.path()).size() >= 2);
  auto none = find_image(home.path(), "no-such-image");
  REQUIRE(!none);
  CHECK(fault(none.error()).find("berth image build") != std::string::npos);
  CHECK(!find_image(home.path(), "../images/minimal"));
}

TEST_CASE("A damaged image is not used, and the damage is named") {
  temp_dir home;
  const image made = make_image(home.path(), "minimal", "kernel");
  REQUIRE(find_image(home.path(), "minimal"));
  auto damage = [&] {
    auto found = find_image(home.path(), "minimal");
    return found ? std::string{} : fault(found.error());
  };
  SECTION("a bit is flipped") {
    owned_fd file{::open(made.kernel().c_str(), O_WRONLY)};
    REQUIRE(::pwrite(file.get(), "K", 1, 0) == 1);
    CHECK(damage().find("vmlinux: is damaged") != std::string::npos);
  }
  SECTION("a bit is flipped, and the time of it hidden") {
    struct stat facts {};
    REQUIRE(::stat(made.kernel().c_str(), &facts) == 0);
    write(made.kernel(), "Kernel");
    const timespec times[2] = {facts.st_atim, facts.st_mtim};
    REQUIRE(::utimensat(AT_FDCWD, made.kernel().c_str(), times, 0) == 0);
    CHECK(damage().find("vmlinux: is damaged") != std::string::npos);
  }
  SECTION("a file ends early") {
    fs::resize_file(made.root(), 2);
    CHECK(damage().find("root.img: has 2 bytes instead of 4") != std::string::npos);
  }
  SECTION("a file is missing") {
    fs::remove(made.initrd());
    CHECK(damage().find("initrd.cpio: No such file") != std::string::npos);
  }
  SECTION("the manifest is cut off") {
    fs::resize_file(made.directory + "/manifest.json", 100);
    CHECK(damage().find("manifest.json") != std::string::npos);
  }
  SECTION("the manifest is missing") {
    fs::remove(made.directory + "/manifest.json");
    CHECK(!damage().empty());
  }
}

TEST_CASE("An image is removed by its version, or by its name with all its versions") {
  temp_dir home;
  const image old = make_image(home.path(), "minimal", "old kernel");
  const image made = make_image(home.path(), "minimal", "kernel");
  CHECK(!remove_image(home.path(), "minimal-" + old.manifest.version));
  CHECK(!fs::exists(old.directory));
  CHECK(find_image(home.path(), "minimal"));
  CHECK(!remove_image(home.path(), "minimal"));
  CHECK(fs::is_empty(home.path() + "/images"));
  CHECK(remove_image(home.path(), "minimal"));
  CHECK(remove_image(home.path(), "."));
}

TEST_CASE("A recipe is checked whole before anything is built of it") {
  CHECK(fault_of_recipe(R"({"name": "science", "base": "minimal", "packages": ["python3-numpy"]})")
        == "");
  CHECK(fault_of_recipe(R"({"name": "a b", "base": "minimal"})").starts_with("name:"));
  CHECK(fault_of_recipe(R"({"name": "full", "base": "minimal"})").starts_with("name:"));
  CHECK(fault_of_recipe(R"({"name": "x", "base": "large"})").starts_with("base:"));
  CHECK(fault_of_recipe(R"({"name": "x"})").starts_with("suite:"));
  CHECK(fault_of_recipe(R"({"name": "x", "base": "full", "packages": ["a,b"]})")
            .starts_with("packages:"));
  CHECK(fault_of_recipe(R"({"name": "x", "base": "full", "packages": ["--hook=x"]})")
            .starts_with("packages:"));
  CHECK(fault_of_recipe(R"({"name": "x", "base": "full", "languages": ["cobol"]})")
            .starts_with("languages:"));
  CHECK(fault_of_recipe(R"({"name": "x", "base": "full", "files": {"/etc/passwd": "usr"}})")
            .starts_with("files:"));
  CHECK(fault_of_recipe(R"({"name": "x", "base": "full", "files": {"/work/../etc/x": "usr"}})")
            .starts_with("files:"));
  CHECK(fault_of_recipe(R"({"name": "x", "base": "full", "files": {"/work/x": "not/there"}})")
            .starts_with("files:"));
  CHECK(fault_of_recipe(R"({"name": "x", "base": "full", "unknown": 1})") != "");
}

TEST_CASE("A recipe adds to its base, and has its files copied to writable places at the start") {
  auto base = load_recipe(BERTH_SOURCE_DIR "/images/minimal.json");
  REQUIRE(base);
  image_recipe own{.name = "x", .base = "minimal", .packages = {"zip"}, .start = "echo ready"};
  image_recipe both = combine(*base, own);
  CHECK(both.name == "x");
  CHECK(both.suite == base->suite);
  CHECK(both.packages.back() == "zip");
  CHECK(both.packages.size() == base->packages.size() + 1);
  CHECK(both.languages == base->languages);
  CHECK(start_program(both) == "echo ready");
  both.files["/usr/share/x"] = "/x";
  CHECK(start_program(both) == "echo ready");
  both.files["/work/x"] = "/x";
  CHECK(start_program(both) == "cp -r /usr/share/berth/files/. /\necho ready");
}

TEST_CASE("An initial file system is the same bytes for the same files") {
  initrd one;
  one.add_file("init", "program", true);
  one.add_directory("dev");
  initrd other;
  other.add_directory("dev");
  other.add_file("init", "program", true);
  CHECK(one.archive() == other.archive());
  CHECK(one.archive().starts_with("070701"));
  CHECK(one.archive().size() % 4 == 0);
}

TEST_CASE("The kernel's command line tells the machine's first process what it keeps") {
  auto options = inside::parse_boot_options(
      "quiet berth.disk_mib=64 console=ttyS0 berth.memory_mib=200 berth.hostname=vm-1 "
      "berth.processes=x berth.vsock_port=1024 berth.way_out=3128\n");
  CHECK(options.way_out == 3128);
  CHECK(options.disk_mib == 64);
  CHECK(options.memory_mib == 200);
  CHECK(options.hostname == "vm-1");
  CHECK(options.processes == 0);
  CHECK(options.vsock_port == 1024);
  CHECK(inside::parse_boot_options("").hostname == "berth");
  CHECK(inside::parse_boot_options("").way_out == 0);
  CHECK(inside::parse_boot_options("berth.way_out=65536").way_out == 0);
}

// SPDX-License-Identifier: Apache-2.0
#include "config/kinds.hpp"
#include "messages/errors.hpp"

#include <catch2/catch.hpp>

using namespace berth;

namespace {

const std::vector<std::string> both{"namespace", "qemu"};

vm_type of_kind(std::string kind) {
  vm_type type;
  type.kind = std::move(kind);
  return type;
}

} // namespace

TEST_CASE("A request is served by the server's own kind unless it asks for more") {
  CHECK(choose_kind(both, "", "", of_kind("")).value() == "namespace");
  CHECK(choose_kind(both, "auto", "namespace", of_kind("auto")).value() == "namespace");
  CHECK(choose_kind(both, "qemu", "", of_kind("")).value() == "qemu");
  CHECK(choose_kind(both, "", "", of_kind("qemu")).value() == "qemu");
  CHECK(choose_kind(both, "", "vm", of_kind("")).value() == "qemu");
}

TEST_CASE("A request is refused rather than served by less than it asks for") {
  auto refused = [](const std::vector<std::string>& served, const char* kind, const char* isolation,
                    const char* type) {
    auto chosen = choose_kind(served, kind, isolation, of_kind(type));
    REQUIRE_FALSE(chosen);
    CHECK(chosen.error() == ec::isolation_unavailable);
    return to_refusal(chosen.error()).detail;
  };
  CHECK_THAT(refused({"namespace"}, "", "vm", ""), Catch::Matchers::Contains("isolation"));
  CHECK_THAT(refused({"namespace"}, "", "", "qemu"), Catch::Matchers::Contains("vm_type"));
  CHECK_THAT(refused(both, "firecracker", "", ""),
             Catch::Matchers::Contains("namespace, qemu ones are"));
  CHECK_THAT(refused(both, "namespace", "vm", ""), Catch::Matchers::Contains("isolation"));
  CHECK_THAT(refused(both, "namespace", "", "qemu"), Catch::Matchers::Contains("vm_type"));
  CHECK_THAT(refused(both, "", "vm", "namespace"), Catch::Matchers::Contains("isolation"));
  CHECK_THAT(refused({"instant"}, "", "namespace", ""), Catch::Matchers::Contains("isolation"));
}

TEST_CASE("A flavour's name leaves the server's own kind unsaid") {
  for (const char* name : {"python", "", "qemu/python", "qemu/"})
    CHECK(flavour::of(name, "namespace").name("namespace") == name);
  CHECK(flavour::of("qemu/", "namespace").kind == "qemu");
  CHECK(flavour::of("qemu/", "namespace").warm.empty());
  CHECK(flavour::of("qemu/python", "qemu").name("qemu") == "python");
}

TEST_CASE("Other kinds are those that machine types name beside the server's own") {
  settings values;
  values.vm_types = {{"a", of_kind("")}, {"b", of_kind("qemu")}, {"c", of_kind("qemu")}};
  CHECK(other_kinds(values) == std::vector<std::string>{"qemu"});
  values.kind = "qemu";
  CHECK(other_kinds(values).empty());
}

TEST_CASE("Machines of another kind are kept ready only where a machine type has that kind") {
  CHECK(parse_settings(R"({"pool": {"warm": {"qemu/python": 1}}})", "t"));
  CHECK_FALSE(parse_settings(R"({"pool": {"warm": {"firecracker/python": 1}}})", "t"));
  CHECK_FALSE(parse_settings(R"({"pool": {"warm": {"qemu/cobol": 1}}})", "t"));
}

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

/// What serves a request under settings with their defaults.
expected<std::string> chosen(const std::vector<std::string>& served, const char* kind,
                             const char* isolation, const vm_type& type) {
  return choose_make(served, kind, isolation, type, settings{});
}

vm_type virtual_type(std::string image, std::uint32_t vcpus) {
  vm_type type = of_kind("qemu");
  type.image = std::move(image);
  type.vcpus = vcpus;
  return type;
}

} // namespace

TEST_CASE("A request is served by the server's own kind unless it asks for more") {
  CHECK(chosen(both, "", "", of_kind("")).value() == "namespace");
  CHECK(chosen(both, "auto", "namespace", of_kind("auto")).value() == "namespace");
  CHECK(chosen(both, "qemu", "", of_kind("")).value() == "qemu");
  CHECK(chosen(both, "", "", of_kind("qemu")).value() == "qemu");
  CHECK(chosen(both, "", "vm", of_kind("")).value() == "qemu");
}

TEST_CASE("A request is refused rather than served by less than it asks for") {
  auto refused = [](const std::vector<std::string>& served, const char* kind, const char* isolation,
                    const char* type) {
    auto chosen = ::chosen(served, kind, isolation, of_kind(type));
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

TEST_CASE("A machine type with an image or processors of its own is a make of its own") {
  settings values;
  values.qemu.image = "full";
  values.qemu.vcpus = 1;
  CHECK(make_of(of_kind(""), values).empty());
  CHECK(make_of(virtual_type("", 0), values) == "qemu");
  CHECK(make_of(virtual_type("full", 1), values) == "qemu");
  CHECK(make_of(virtual_type("science", 0), values) == "qemu:science");
  CHECK(make_of(virtual_type("science", 2), values) == "qemu:science:2");
  CHECK(make_of(virtual_type("", 2), values) == "qemu::2");
  CHECK(kind_of("qemu:science:2") == "qemu");
  CHECK(list_kinds({"namespace", "qemu", "qemu:science:2"}) == "namespace, qemu");
}

TEST_CASE("A machine type gets its own make, or is refused, and others do not get it") {
  const std::vector<std::string> served{"namespace", "qemu:science", "qemu"};
  CHECK(chosen(served, "", "", virtual_type("science", 0)).value() == "qemu:science");
  CHECK(chosen(served, "", "", virtual_type("", 0)).value() == "qemu");
  CHECK(chosen(served, "", "vm", of_kind("")).value() == "qemu");
  auto refused = chosen(served, "", "", virtual_type("science", 2));
  REQUIRE_FALSE(refused);
  CHECK_THAT(to_refusal(refused.error()).detail, Catch::Matchers::Contains("qemu:science:2"));
}

TEST_CASE("What only virtual machines have is refused in types of other kinds, by its name") {
  auto fault = [](const char* type) {
    auto read = parse_settings(R"({"vm_types": {"x": )" + std::string{type} + "}}", "t");
    return read ? std::string{} : to_refusal(read.error()).detail;
  };
  CHECK(fault(R"({"kind": "qemu", "image": "science", "vcpus": 2})").empty());
  CHECK_THAT(fault(R"({"image": "science"})"), Catch::Matchers::Contains("vm_types.x.image"));
  CHECK_THAT(fault(R"({"kind": "namespace", "vcpus": 2})"),
             Catch::Matchers::Contains("vm_types.x.vcpus"));
  CHECK_THAT(fault(R"({"kind": "qemu", "vcpus": 33})"),
             Catch::Matchers::Contains("vm_types.x.vcpus"));
  CHECK_THAT(fault(R"({"kind": "qemu", "image": "../etc"})"),
             Catch::Matchers::Contains("vm_types.x.image"));
}

TEST_CASE("A flavour's name leaves the server's own kind unsaid") {
  for (const char* name : {"python", "", "qemu/python", "qemu/"})
    CHECK(flavour::of(name, "namespace").name("namespace") == name);
  CHECK(flavour::of("qemu/", "namespace").make == "qemu");
  CHECK(flavour::of("qemu/", "namespace").warm.empty());
  CHECK(flavour::of("qemu/python", "qemu").name("qemu") == "python");
}

TEST_CASE("Other kinds are those that machine types name beside the server's own") {
  settings values;
  values.vm_types = {{"a", of_kind("")}, {"b", of_kind("qemu")}, {"c", of_kind("qemu")}};
  CHECK(other_makes(values) == std::vector<std::string>{"qemu"});
  values.kind = "qemu";
  CHECK(other_makes(values).empty());
}

TEST_CASE("Machines of another kind are kept ready only where a machine type has that kind") {
  CHECK(parse_settings(R"({"pool": {"warm": {"qemu/python": 1}}})", "t"));
  CHECK_FALSE(parse_settings(R"({"pool": {"warm": {"qemu::2/python": 1}}})", "t"));
  CHECK_FALSE(parse_settings(R"({"pool": {"warm": {"qemu/cobol": 1}}})", "t"));
}

TEST_CASE("Machines with a network are a make of their own, by the list and not by the type") {
  settings values;
  vm_type pip = of_kind("namespace");
  pip.network = {"api.test:443"};
  vm_type npm = of_kind("qemu");
  npm.network = {"other.test:443"};
  values.vm_types = {{"npm", npm}, {"pip", pip}, {"pip-large", pip}};
  CHECK(make_of(pip, values) == "namespace@pip");
  CHECK(make_of(values.vm_types.at("pip-large"), values) == "namespace@pip");
  CHECK(make_of(npm, values) == "qemu@npm");
  npm.vcpus = 2;
  CHECK(make_of(npm, values) == "qemu::2@npm");
  CHECK(kind_of("namespace@pip") == "namespace");
  CHECK(kind_of("qemu::2@npm") == "qemu");
  CHECK(without_network("qemu::2@npm") == "qemu::2");
  CHECK(without_network("qemu") == "qemu");
  CHECK(list_kinds({"namespace", "namespace@pip", "qemu@npm"}) == "namespace, qemu");
  CHECK(other_makes(values) == std::vector<std::string>{"qemu@npm", "namespace@pip"});
}

TEST_CASE("Whoever asks for a network gets it or is refused, and nobody else gets it") {
  settings values;
  vm_type pip = of_kind("namespace");
  pip.network = {"api.test:443"};
  values.vm_types = {{"pip", pip}};
  auto chosen_of = [&](std::vector<std::string> served, const char* kind, const vm_type& type) {
    return choose_make(served, kind, "", type, values);
  };
  CHECK(chosen_of({"namespace", "namespace@pip"}, "", pip).value() == "namespace@pip");
  CHECK(chosen_of({"namespace", "namespace@pip"}, "", of_kind("")).value() == "namespace");
  CHECK(chosen_of({"qemu", "namespace", "namespace@pip"}, "namespace", of_kind("")).value()
        == "namespace");
  CHECK_FALSE(chosen_of({"namespace", "qemu"}, "", pip));
  CHECK_FALSE(chosen_of({"namespace", "namespace@pip", "qemu"}, "qemu", pip));
  CHECK_FALSE(chosen_of({"namespace@pip", "qemu"}, "namespace", of_kind("")));
  pip.network = {"api.test:443", "evil.org:443"};
  CHECK_FALSE(chosen_of({"namespace", "namespace@pip"}, "", pip));
}

// SPDX-License-Identifier: Apache-2.0
#include "config/settings.hpp"

#include <catch2/catch.hpp>

using namespace berth;

namespace {

std::string fault_of(const std::string& text) {
  auto got = parse_settings(text, "x.json");
  return got ? "" : to_refusal(got.error()).detail;
}

settings good(const std::string& text) {
  auto got = parse_settings(text, "x.json");
  if (!got)
    FAIL(describe_error(got.error()));
  return *got;
}

} // namespace

TEST_CASE("The defaults are good, and an empty object is the defaults") {
  CHECK_FALSE(check(settings{}));
  CHECK(good("{}") == settings{});
}

TEST_CASE("The example file holds every default") {
  auto got = load_settings(BERTH_SOURCE_DIR "/config/berth.json");
  REQUIRE(got);
  CHECK(*got == settings{});
}

TEST_CASE("The mission's file is taken as it is") {
  auto got = load_settings(BERTH_SOURCE_DIR "/config/vm_execution.json");
  REQUIRE(got);
  CHECK(got->policy.enabled);
  CHECK(got->policy.default_vm_type == "terraphim-minimal");
  CHECK(got->policy.history.max_history_entries == 100);
  CHECK(*got->policy.security_settings.resource_limits.max_memory_mb == 2048);
  CHECK(*got->policy.security_settings.resource_limits.max_execution_time_seconds == 60);
  CHECK(got->pool.warm.at("") == 3);
}

TEST_CASE("vm_execution may be true or false, and holds members that nobody knows") {
  CHECK(good(R"({"vm_execution": true})") == settings{});
  CHECK_FALSE(good(R"({"vm_execution": false})").policy.enabled);
  CHECK(good(R"({"vm_execution": {"later": 1, "history": {"later": 1}}})") == settings{});
  CHECK(
      good(R"({"vm_execution": {"history": {"enabled": false}}})").policy.history.persist_history);
}

TEST_CASE("One number is the time limit, wherever it is given") {
  CHECK(good(R"({"vm_execution": {"execution_timeout_ms": 5}})").defaults.timeout_ms == 5);
  CHECK(good(R"({"defaults": {"timeout_ms": 5}})").policy.execution_timeout_ms == 5);
  CHECK(fault_of(R"({"defaults": {"timeout_ms": 5}, "vm_execution": {"execution_timeout_ms": 6}})")
            .find("defaults.timeout_ms")
        != std::string::npos);
}

TEST_CASE("A fault is told by file, place and member") {
  CHECK(fault_of("{\n  \"kind\": }").starts_with("x.json: line 2, column 11: "));
  CHECK(fault_of("").starts_with("x.json: line 1, "));
  CHECK(fault_of("[]") == "x.json: must be an object, is a list");
  CHECK(fault_of(R"({"htp_port": 1})")
        == R"(x.json: htp_port: is not a setting; did you mean "http_port"?)");
  CHECK(fault_of(R"({"pool": {"slot_max": 1}})")
        == R"(x.json: pool.slot_max: is not a setting; did you mean "slots_max"?)");
  CHECK(fault_of(R"({"http_port": "80"})") == "x.json: http_port: must be a whole number, is text");
  CHECK(fault_of(R"({"http_port": 65536})") == "x.json: http_port: is too large, at most 65535");
  CHECK(fault_of(R"({"http_port": -1})") == "x.json: http_port: must not be negative");
  CHECK(fault_of(R"({"http_port": 1.5})")
        == "x.json: http_port: must be a whole number, is a fraction");
  CHECK(fault_of(R"({"require": ["seccomp", 1]})")
        == "x.json: require[1]: must be text, is a number");
  CHECK(fault_of(R"({"kind": "auto", "kind": "qemu"})") == R"(x.json: "kind" is given twice)");
  CHECK(fault_of(R"({"vm_execution": {"history": {"enabled": 1}}})")
        == "x.json: vm_execution.history.enabled: must be true or false, is a number");
  CHECK(load_settings("/nowhere/berth.json").error() == ec::not_found);
}

TEST_CASE("What may not be is refused by its member") {
  auto names = [](const std::string& text, const std::string& member) {
    INFO(text);
    CHECK(fault_of(text).starts_with("x.json: " + member));
  };
  names(R"({"zmq_router": "tcp://0.0.0.0:5555"})", "zmq_router");
  names(R"({"zmq_router": "tcp://*:5555"})", "zmq_router");
  names(R"({"zmq_events": "udp://x"})", "zmq_events");
  names(R"({"zmq_router": "tcp://127.0.0.1:70000"})", "zmq_router");
  names(R"({"zmq_curve_secret_key": "short"})", "zmq_curve_public_key");
  names(R"({"http_address": "0.0.0.0"})", "http_address");
  names(R"({"http_tokens": [""]})", "http_tokens[0]");
  names(R"({"kind": "docker"})", "kind");
  names(R"({"require": ["magic"]})", "require[0]");
  names(R"({"pool": {"slots_max": 0}})", "pool.slots_max");
  names(R"({"pool": {"warm": {"cobol": 1}}})", "pool.warm");
  names(R"({"defaults": {"memory_mib": 9000}})", "defaults.memory_mib");
  names(R"({"maxima": {"timeout_ms": 0}})", "maxima.timeout_ms");
  names(R"({"vm_types": {"x": {"memory_mib": 1}}})", "vm_types.x.memory_mib");
  names(R"({"vm_execution": {"allowed_languages": ["cobol"]}})",
        "vm_execution.allowed_languages[0]");
  names(R"({"vm_execution": {"max_code_length": 0}})", "vm_execution.max_code_length");
  names(R"({"log_level": "loud"})", "log_level");
  names(R"({"data_dir": "relative"})", "data_dir");
}

TEST_CASE("A door beyond loopback opens with keys or tokens") {
  std::string key(40, 'a');
  CHECK(fault_of(R"({"zmq_router": "tcp://0.0.0.0:5555", "zmq_curve_secret_key": ")" + key
                 + R"(", "zmq_curve_public_key": ")" + key + R"(", "zmq_curve_clients": [")" + key
                 + R"("]})")
            .empty());
  CHECK(fault_of(R"({"http_address": "0.0.0.0", "http_tokens": ["abc"]})").empty());
  CHECK(fault_of(R"({"http_address": "0.0.0.0", "http_insecure": true})").empty());
}

TEST_CASE("Paths that were left empty are filled in") {
  settings values;
  values.runtime_dir = "/run/x";
  fill_paths(values);
  CHECK(values.zmq_ipc == "ipc:///run/x/berth.ipc");
  CHECK(values.data_dir.starts_with('/'));
  CHECK(values.lib_dir.ends_with("lib/berth"));
  values.zmq_ipc.clear();
  fill_paths(values);
  CHECK(values.zmq_ipc.empty());
}

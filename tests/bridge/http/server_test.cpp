// SPDX-License-Identifier: Apache-2.0
#include "tests/bridge/http/support.hpp"

#include <catch2/catch.hpp>

using namespace berth;
using namespace berth::test;
using namespace std::chrono_literals;

TEST_CASE("Health is told as JSON that every client accepts", "[http]") {
  http_house house;
  answer got = ask(house.port(), "GET", "/health");
  CHECK(got.status == 200);
  CHECK(got.headers["Content-Type"] == "application/json");
  CHECK(got.headers["Access-Control-Allow-Origin"] == "*");
  CHECK(got.tree()["status"] == "healthy");
  CHECK(got.tree()["service"] == "fcctl-web");
  CHECK(got.tree()["timestamp"].get<std::string>().back() == 'Z');
  CHECK(ask(house.port(), "GET", "/health/").status == 200);
}

TEST_CASE("What does not exist is refused in JSON", "[http]") {
  http_house house;
  answer got = ask(house.port(), "GET", "/nowhere");
  CHECK(got.status == 404);
  for (const char* member : {"status", "error", "message", "code"})
    CHECK(got.tree()[member].is_string());
  got = ask(house.port(), "DELETE", "/api/llm/execute");
  CHECK(got.status == 405);
  CHECK(got.headers["Allow"] == "OPTIONS, POST");
}

TEST_CASE("HEAD has the header of GET and no body", "[http]") {
  http_house house;
  raw_client client{house.port()};
  client.send("HEAD /api/vm-pool/stats HTTP/1.1\r\nHost: x\r\n\r\n"
              "GET /api/vm-pool/stats HTTP/1.1\r\nHost: x\r\n\r\n");
  answer head = client.receive(true);
  answer got = client.receive();
  CHECK(head.status == 200);
  CHECK(std::stoul(head.headers["Content-Length"]) == got.body.size());
}

TEST_CASE("A preflight is allowed from anywhere", "[http]") {
  http_house house;
  answer got = ask(house.port(), "OPTIONS", "/api/llm/execute", "",
                   "Origin: http://a\r\nAccess-Control-Request-Method: POST\r\n"
                   "Access-Control-Request-Headers: content-type, x-y\r\n");
  CHECK(got.status == 204);
  CHECK(got.headers["Access-Control-Allow-Headers"] == "content-type, x-y");
  CHECK(got.headers["Access-Control-Allow-Methods"].find("DELETE") != std::string::npos);
}

TEST_CASE("Pipelined requests are answered in order on one connection", "[http]") {
  http_house house;
  raw_client client{house.port()};
  std::string one = "GET /api/vms/metrics HTTP/1.1\r\nHost: x\r\n\r\n";
  std::string two =
      "POST /api/llm/execute HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "10\r\n{\"code\":\"x\",\"lan\r\n12\r\nguage\":\"python\"}  \r\n0\r\n\r\n";
  client.send(one + two + one);
  CHECK(client.receive().tree().is_array());
  answer ran = client.receive();
  CHECK(ran.status == 200);
  CHECK(ran.tree()["stdout"] == "out");
  CHECK(client.receive().tree().is_array());
}

TEST_CASE("A client that waits for 100 Continue is told to go on, or why not", "[http]") {
  http_house house;
  std::string body = R"({"code":"x","language":"python"})";
  std::string fields = " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
                       + std::to_string(body.size()) + "\r\n\r\n";
  raw_client client{house.port()};
  client.send("POST /api/llm/execute" + fields);
  CHECK(client.receive().status == 100);
  client.send(body);
  CHECK(client.receive().status == 200);
  raw_client lost{house.port()};
  lost.send("POST /nowhere" + fields);
  CHECK(lost.receive().status == 404);
  CHECK(lost.closed());
}

TEST_CASE("Ambiguous framing is refused and the connection closed", "[http]") {
  http_house house;
  auto refused = [&](const std::string& fields) {
    raw_client client{house.port()};
    client.send("POST /api/llm/execute HTTP/1.1\r\n" + fields
                + "\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    answer got = client.receive();
    CHECK(client.closed());
    CHECK(got.tree()["status"] == "error");
    return got.status;
  };
  CHECK(refused("Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n") == 400);
  CHECK(refused("Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n") == 400);
  CHECK(refused("Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n") == 400);
  CHECK(refused("Host: x\r\nTransfer-Encoding: gzip\r\n") == 501);
  CHECK(refused("Host: x\r\nHost: y\r\n") == 400);
  CHECK(refused("X: y\r\n") == 400);
  CHECK(refused("Host : x\r\n") == 400);
}

TEST_CASE("What is larger than a limit is refused by its name", "[http]") {
  http_house house{{.header_bytes_max = 4096, .body_bytes_max = 100'000}};
  CHECK(ask(house.port(), "GET", "/health", "", "X: " + std::string(5000, 'x') + "\r\n").status
        == 431);
  CHECK(ask(house.port(), "POST", "/api/llm/execute", std::string(100'001, ' ')).status == 413);
  raw_client client{house.port()};
  client.send("POST /api/llm/execute HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
              "186a1\r\n"
              + std::string(100'001, ' ') + "\r\n0\r\n\r\n");
  CHECK(client.receive().status == 413);
}

TEST_CASE("Slow clients lose their connection", "[http]") {
  http_house house{{.idle_timeout = 60ms, .header_timeout = 60ms, .body_timeout = 60ms}};
  raw_client silent{house.port()};
  CHECK(silent.closed());
  raw_client header{house.port()};
  header.send("GET /health HTT");
  CHECK(header.closed());
  raw_client body{house.port()};
  body.send("POST /api/llm/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{");
  CHECK(body.closed());
}

TEST_CASE("Connections beyond the limit are told so", "[http]") {
  http_house house{{.connections_max = 1}};
  raw_client first{house.port()};
  first.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(first.receive().status == 200);
  raw_client second{house.port()};
  answer got = second.receive();
  CHECK(got.status == 503);
  CHECK(got.headers["Retry-After"] == "1");
}

TEST_CASE("Tokens are asked for when there are any, and health is free", "[http]") {
  http_house house{{.tokens = {"secret", "other"}}};
  CHECK(ask(house.port(), "GET", "/health").status == 200);
  answer got = ask(house.port(), "GET", "/api/vms");
  CHECK(got.status == 401);
  CHECK(got.tree()["code"] == "unauthorized");
  CHECK(ask(house.port(), "GET", "/api/vms", "", "Authorization: Bearer secre\r\n").status == 401);
  CHECK(ask(house.port(), "GET", "/api/vms", "", "Authorization: Bearer other\r\n").status == 200);
  raw_socket socket{house.port(), "/ws/vm-1?access_token=secret"};
  socket.text(R"({"message_type":"Ping"})");
  CHECK(socket.message()["message_type"] == "Pong");
}

TEST_CASE("HTTP/1.0 and Connection: close end the connection", "[http]") {
  http_house house;
  for (const char* request : {"GET /health HTTP/1.0\r\n\r\n",
                              "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"}) {
    raw_client client{house.port()};
    client.send(request);
    CHECK(client.receive().status == 200);
    CHECK(client.closed());
  }
}

TEST_CASE("The more literal route wins and segments are decoded after the split", "[http]") {
  http::router routes;
  auto none = [](const http::request&, const http::responder&) {};
  routes.get("/a/{id}", none);
  routes.get("/a/metrics", none);
  routes.erase("/a/{id}", none);
  auto found = routes.find("GET", {"a", "x/y"});
  CHECK(found.params.at("id") == "x/y");
  CHECK(routes.find("GET", {"a", "metrics"}).params.empty());
  CHECK(routes.find("DELETE", {"a", "metrics"}).params.at("id") == "metrics");
  CHECK(routes.find("GET", {"a", ""}).allow.empty());
  http::request target;
  CHECK(http::parse_target("/a/x%2Fy/?q=a+b%26", target));
  CHECK(target.path == std::vector<std::string>{"a", "x/y"});
  CHECK(target.query.at("q") == "a b&");
  CHECK(!http::parse_target("/%zz", target));
}

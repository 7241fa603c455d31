// A stand-in for XRT in tests: memory of the host plays the card, the compiled kernel runs at once.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" int flexllm_run(void **args, char *message, unsigned size);
enum xclBOSyncDirection { XCL_BO_SYNC_BO_TO_DEVICE, XCL_BO_SYNC_BO_FROM_DEVICE };

namespace xrt {
struct device {
  explicit device(int) {}
  std::string load_xclbin(const std::string &path) { return path; }
};
struct kernel {
  kernel(device &, const std::string &, const std::string &) {}
  int group_id(int index) { return index; }
};
// Host and card side; a sub-buffer is a part of both.
struct bo {
  std::shared_ptr<std::vector<char>> host, card;
  size_t offset = 0, bytes = 0;
  bo(device &, size_t size, int)
      : host(std::make_shared<std::vector<char>>(size)), card(std::make_shared<std::vector<char>>(size)), bytes(size) {}
  bo(const bo &parent, size_t size, size_t at) : host(parent.host), card(parent.card), offset(parent.offset + at), bytes(size) {
    if (at % 4096 || at + size > parent.bytes) throw std::runtime_error("no such part of a buffer");
  }
  template <typename P>
  P map() { return (P)(host->data() + offset); }
  void write(const void *data) { std::memcpy(host->data() + offset, data, bytes); }
  void sync(xclBOSyncDirection direction) {
    auto &from = direction == XCL_BO_SYNC_BO_TO_DEVICE ? host : card, &to = direction == XCL_BO_SYNC_BO_TO_DEVICE ? card : host;
    std::memcpy(to->data() + offset, from->data() + offset, bytes);
  }
};
struct run {
  std::map<int, std::vector<char>> scalars;
  std::map<int, void *> pointers;
  explicit run(kernel &) {}
  void set_arg(int index, bo &buffer) { pointers[index] = buffer.card->data() + buffer.offset; }
  template <typename T>
  void set_arg(int index, T value) {
    scalars[index].assign((char *)&value, (char *)&value + sizeof(T));
    pointers[index] = scalars[index].data();
  }
  void start() {
    std::vector<void *> args;
    for (auto &entry : pointers) args.push_back(entry.second);
    char message[200];
    if (flexllm_run(args.data(), message, sizeof(message))) throw std::runtime_error(message);
  }
  void wait() {}
};
}  // namespace xrt

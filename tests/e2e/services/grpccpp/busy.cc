// busy server PORT LOG [FOLDER]
// busy client PORT LOG COUNT CONCURRENCY CONNECTIONS PAUSE_MS [FOLDER]
//
// Calls of the same 24 methods over and over, on a few connections, with grpc-core's C++ library. Method n has a message
// of n bytes, so its size tells the method. With FOLDER, which has cert.pem and key.pem, it is done in TLS.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int METHODS = 24;
constexpr int SERVING_THREADS = 3;

std::FILE *log_file;

void log(int number) { std::fprintf(log_file, "{\"number\": %d}\n", number); }

std::string path(int number) { return "/shop.Cart/same-" + std::to_string(number); }

std::string read_file(const std::string &name)
{
	std::ifstream file(name);
	return std::string(std::istreambuf_iterator<char>(file), {});
}

// One call at a time; asks for the next one as soon as it has got one.
class Call {
      public:
	Call(grpc::AsyncGenericService *service, grpc::ServerCompletionQueue *queue)
		: service_(service), queue_(queue), stream_(&context_)
	{
		service_->RequestCall(&context_, &stream_, queue_, queue_, this);
	}

	void proceed(bool ok)
	{
		if (state_ == State::ASKED && ok) {
			new Call(service_, queue_);
			state_ = State::READING;
			stream_.Read(&message_, this);
		} else if (state_ == State::READING && ok) {
			const std::string method = context_.method();
			const int number = std::atoi(method.c_str() + method.rfind('-') + 1);
			log(number);
			state_ = State::ANSWERED;
			if (number % 8 == 7)
				stream_.Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "as asked"), this);
			else
				stream_.WriteAndFinish(message_, grpc::WriteOptions(), grpc::Status::OK, this);
		} else {
			delete this;
		}
	}

      private:
	enum class State { ASKED, READING, ANSWERED };

	grpc::AsyncGenericService *service_;
	grpc::ServerCompletionQueue *queue_;
	grpc::GenericServerContext context_;
	grpc::GenericServerAsyncReaderWriter stream_;
	grpc::ByteBuffer message_;
	State state_ = State::ASKED;
};

void serve(const std::string &port, const std::string &folder)
{
	std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
	if (!folder.empty()) {
		grpc::SslServerCredentialsOptions options;
		options.pem_key_cert_pairs.push_back({read_file(folder + "/key.pem"), read_file(folder + "/cert.pem")});
		credentials = grpc::SslServerCredentials(options);
	}
	grpc::AsyncGenericService service;
	grpc::ServerBuilder builder;
	builder.AddListeningPort("127.0.0.1:" + port, credentials);
	builder.RegisterAsyncGenericService(&service);
	std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
	for (int i = 0; i < SERVING_THREADS; i++)
		queues.push_back(builder.AddCompletionQueue());
	std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
	if (!server)
		std::exit(1);
	std::vector<std::thread> threads;
	for (auto &queue : queues)
		threads.emplace_back([&service, &queue] {
			new Call(&service, queue.get());
			void *call;
			bool ok;
			while (queue->Next(&call, &ok))
				static_cast<Call *>(call)->proceed(ok);
		});
	for (std::thread &thread : threads)
		thread.join();
}

// Returns how the call ended.
grpc::Status call(grpc::GenericStub &stub, grpc::CompletionQueue &queue, int number)
{
	grpc::Slice slice(std::string(number, 'q'));
	grpc::ByteBuffer question(&slice, 1), answer;
	grpc::ClientContext context;
	grpc::Status status;
	void *tag;
	bool ok;
	auto reader = stub.PrepareUnaryCall(&context, path(number), question, &queue);
	reader->StartCall();
	reader->Finish(&answer, &status, nullptr);
	queue.Next(&tag, &ok);
	return status;
}

void ask(const std::string &port, int count, int concurrency, int connections, int pause, const std::string &folder)
{
	std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
	if (!folder.empty())
		credentials = grpc::SslCredentials({read_file(folder + "/cert.pem"), "", ""});
	grpc::ChannelArguments arguments;
	arguments.SetInt("grpc.use_local_subchannel_pool", 1);
	std::vector<std::unique_ptr<grpc::GenericStub>> stubs;
	for (int i = 0; i < connections; i++)
		stubs.push_back(std::make_unique<grpc::GenericStub>(
			grpc::CreateCustomChannel("localhost:" + port, credentials, arguments)));
	std::atomic<int> next{0};
	std::vector<std::thread> threads;
	for (int i = 0; i < concurrency; i++)
		threads.emplace_back([&, i] {
			std::minstd_rand random(i);
			grpc::CompletionQueue queue;
			for (int turn = next++; turn < count; turn = next++) {
				const int number = turn % METHODS;
				const grpc::Status status = call(*stubs[i % connections], queue, number);
				if (status.error_code() == (number % 8 == 7 ? grpc::NOT_FOUND : grpc::OK))
					log(number);
				std::this_thread::sleep_for(std::chrono::milliseconds(random() % (pause + 1)));
			}
		});
	for (std::thread &thread : threads)
		thread.join();
}

} // namespace

int main(int argc, char **argv)
{
	const std::vector<std::string> words(argv + 1, argv + argc);
	log_file = std::fopen(words.at(2).c_str(), "a");
	std::setvbuf(log_file, nullptr, _IOLBF, BUFSIZ);
	if (words[0] == "server")
		serve(words[1], words.size() > 3 ? words[3] : "");
	else
		ask(words[1], std::stoi(words.at(3)), std::stoi(words.at(4)), std::stoi(words.at(5)), std::stoi(words.at(6)),
		    words.size() > 7 ? words[7] : "");
}

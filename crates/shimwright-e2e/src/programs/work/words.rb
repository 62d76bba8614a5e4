words = File.read("/work/text.txt").downcase.scan(/\w+/)
counts = words.tally
frequent = counts.sort_by { |word, count| [-count, word] }.first(3)
File.write("/work/frequent.txt", frequent.map { |word, count| "#{word} #{count}\n" }.join)
puts "Ruby #{RUBY_VERSION} on #{RUBY_PLATFORM}: #{words.length} words, #{counts.length} different"
